"""What decides a network down to its last number: recipe, plan, classes and weights, which travel together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from budwood.config.recipe import Recipe
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.weights import Weights


@dataclass(frozen=True)
class NetworkSpec:
    """A network that can be built: `surgery.loaded` makes it.

    Attributes:
        recipe: What was asked for.
        plan: What the recipe makes of its network.
        classes: How many logits it gives.
        weights: Where its values come from.
    """

    recipe: Recipe
    plan: NetworkPlan
    classes: int
    weights: Weights

    def with_recipe(self, **options: object) -> NetworkSpec:
        """Return the same network with other options of the recipe, none of which changes the plan."""
        return replace(self, recipe=self.recipe.model_copy(update=options))
