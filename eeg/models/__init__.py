"""Networks from windows (batch, electrode, sample) to answers (batch, output). They import nothing of the project but each other: a submission ships these files alone."""
