"""The finder of cases on disk, volumes, their geometry and intensities."""
