"""Write data sets that are ready to train on, with a card that says how they were made."""
