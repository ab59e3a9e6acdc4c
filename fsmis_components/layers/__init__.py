"""The boxes of the papers' figures, the support state and resizing."""
