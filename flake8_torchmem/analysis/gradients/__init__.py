"""What the gradients of each optimizer hold, path by path, and what windows of micro-batches make of them."""
