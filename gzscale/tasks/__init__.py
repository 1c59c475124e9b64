"""Tasks: what a network says, turned into columns with units."""
