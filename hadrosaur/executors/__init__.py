"""Where resources are computed. `base` is the contract; each other module keeps it in its own way."""
