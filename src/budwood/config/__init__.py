"""What a user may decide: the recipe, its options, and the registries that name the parts."""
