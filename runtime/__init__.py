"""The machine room: which llama-server there is, how it is run for each model, and the fleet of them."""
