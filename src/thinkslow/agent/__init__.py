"""Who acts: an agent, how it thinks, and when."""
