"""Pages and pictures for people: HTML reports and slices with outlines."""
