"""``hrcam compare``: a matrix of trainings, and the leaderboard that comes of it."""
