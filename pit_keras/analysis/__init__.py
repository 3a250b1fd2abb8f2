"""What models cost and what training looked like."""
