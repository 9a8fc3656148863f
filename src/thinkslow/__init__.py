"""Decision-time refinement for trained world-model agents."""
