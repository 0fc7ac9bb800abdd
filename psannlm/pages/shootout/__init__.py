"""Which base predicts better: arms tuned alike, trained alike, told apart by intervals."""
