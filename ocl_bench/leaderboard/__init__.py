"""The leaderboard: submissions, the checks that they pass, and the table and page made of them."""
