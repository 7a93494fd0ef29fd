"""The trials as a pandas table."""

from .search_cases import complete, open_search, run_path, scored, states  # noqa: F401


def test_every_trial_is_a_row(folder):
    search = open_search(folder)
    search.run(scored, 5)
    search.fail(search.ask().number, "boom")
    search.ask()
    table = search.to_pandas()
    assert table.index.name == "number"
    assert list(table.index) == [record.number for record in search.trials]
    assert table["state"].tolist() == states(search)
    assert {"COMPLETE", "FAIL", "RUNNING"} <= set(table["state"])
    assert "boom" in table["reason"].tolist()
    for record in complete(search):
        row = table.loc[record.number]
        assert (row["score"], row["num_params"]) == (record.score, record.num_params)
        assert row["learning_rate"] == record.learning_rate
        assert row["serial_bottleneck_size"] == record.config.serial_bottleneck_size
        assert row["layers_to_transform"] == record.config.layers_to_transform
    front = table[table["on_front"]].sort_values("num_params")
    assert front.index.tolist() == [record.number for record in search.front()]


def test_a_new_search_has_the_same_columns(folder):
    search = open_search(folder)
    before = search.to_pandas()
    assert len(before) == 0
    search.run(scored, 1)
    assert list(search.to_pandas().columns) == list(before.columns)
