"""ASGI entry of the checkout: `uvicorn server:app`."""

from capibara_agents.assembly import create_app

app = create_app()
