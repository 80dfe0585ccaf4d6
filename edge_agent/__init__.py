"""What runs on a gateway device: participant and committee member roles, their vault, data sources, training."""
