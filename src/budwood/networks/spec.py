"""What decides a network down to its last number: recipe, plan, classes and weights, which travel together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from budwood.config.recipe import Recipe
from budwood.networks.network_plan import NetworkPlan
from budwood.networks.weights import Weights


@dataclass(frozen=True)
class NetworkSpec:
    """A network that can be built, by `surgery.load_network`.

    Attributes:
        recipe: The recipe that was given.
        plan: What the recipe makes of its network.
        classes: Number of logits.
        weights: Where its values come from.
    """

    recipe: Recipe
    plan: NetworkPlan
    classes: int
    weights: Weights

    def with_recipe(self, **options: object) -> NetworkSpec:
        """Return the same network with other options of the recipe, none of which changes the plan.

        Args:
            **options: New values by name of the option; they are not validated.

        Returns:
            A copy with the changed recipe.
        """
        return replace(self, recipe=self.recipe.model_copy(update=options))
