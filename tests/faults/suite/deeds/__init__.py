"""What breaks. A deed is done on a stage, and has the time that the stage says."""
