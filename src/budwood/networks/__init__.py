"""Names to networks: stages, surgery, frozen parameters, weights and plans."""
