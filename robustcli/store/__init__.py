"""What was measured once is kept in one SQLite file, and found again. No torch here: a kept answer comes at once."""
