"""What readers of the book see: claims, cards, history, published figures, downloads."""
