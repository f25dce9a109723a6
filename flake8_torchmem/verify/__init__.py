"""Runtime proof."""
