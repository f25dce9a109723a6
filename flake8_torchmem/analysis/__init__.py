"""From source text to facts about gradients, values and lifetimes."""
