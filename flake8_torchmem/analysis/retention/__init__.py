"""What outlives the turn that made it: graphs, outputs, weights, and evaluations that record for nothing."""
