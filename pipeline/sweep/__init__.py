"""`pipeline sweep`: a grid of training settings over one store, compared on pairs that nothing was trained on."""
