"""Text, tokens and the training of networks on them."""
