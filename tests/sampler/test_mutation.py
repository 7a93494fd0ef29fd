"""The mutation of the front: one dimension of one member, and what happens when none is left."""

import numpy as np

from peft_autoconfig.sampler import ParetoMutationSampler
from peft_autoconfig.space import SearchSpace

from .cases import SPACE, finished, new_study, objective, points, random_params, score


def vectors(study):
    return np.array([SPACE.encode_params(trial.params) for trial in study.trials])


def test_each_proposal_changes_one_dimension_of_a_member_of_the_front():
    study = new_study(ParetoMutationSampler(SPACE, 0, n_startup=4))
    study.optimize(objective, n_trials=24)
    X = vectors(study)
    values = np.array([trial.values for trial in study.trials])
    for i in range(4, 24):
        better = (values[:i, None] >= values[:i])[..., 0] & (values[:i, None] <= values[:i])[..., 1]
        ties = (values[:i, None] == values[:i]).all(axis=-1)
        front = X[:i][~(better & ~ties).any(axis=0)]
        assert ((front != X[i]).sum(axis=1) == 1).any()


def test_members_and_dimensions_are_drawn_evenly():
    cheap, dear = sorted(random_params(30), key=lambda p: SPACE.num_params(SPACE.config(p)))[::29]
    changed, parents = set(), set()
    for seed in range(60):
        study = new_study(ParetoMutationSampler(SPACE, seed, n_startup=1))
        for params, value in ((cheap, 0.1), (dear, 0.9)):
            study.add_trial(finished(SPACE, params, values=[value, 1.0]))
        SPACE.suggest(study.ask())
        X = vectors(study)
        differs = X[:2] != X[2]
        parent = int(differs.sum(axis=1).argmin())
        parents.add(parent)
        changed.update(np.flatnonzero(differs[parent]).tolist())
    assert parents == {0, 1}
    assert changed == set(range(len(SPACE.dimensions)))


def test_a_member_without_new_neighbours_makes_way_for_another_and_then_for_chance():
    space = SearchSpace(
        num_layers=3,
        hidden_size=8,
        serial_bottleneck_sizes=(0, 4),
        parallel_bottleneck_sizes=(0,),
        prefix_lengths=(0,),
    )
    # the first is the whole front; its only neighbours have two layers, the rest needs chance
    study = new_study(ParetoMutationSampler(space, 0, n_startup=1))
    values = {1: 0.9, 2: 0.5, 3: 0.1}
    one = {**space.params(space.decode([1, 0, 0, 1, 0, 0])[0])}
    study.add_trial(finished(space, one, values=[values[1], 1.0]))

    def falls_with_layers(trial):
        config = space.suggest(trial)
        return values[len(config.layers_to_transform or range(3))], 1.0

    study.optimize(falls_with_layers, n_trials=6)
    active = [sum(t.params[f"layer_{i}"] for i in range(3)) for t in study.trials]
    assert active[1:3] == [2, 2]
    assert len(set(points(study))) == space.num_points == 7


def test_it_finds_better_fronts_than_it_started_with():
    study = new_study(ParetoMutationSampler(SPACE, 0))
    study.optimize(objective, n_trials=60)
    best = [max(score(t.params) for t in study.trials[:n]) for n in (12, 60)]
    assert best[1] > best[0]
