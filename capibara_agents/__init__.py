"""Capibara: five local models behind one endpoint."""
