"""A ridge, fitted in closed form: two passes over the windows, exact sums, no steps."""
