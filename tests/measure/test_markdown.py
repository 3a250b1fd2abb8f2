from pit_keras.measure.markdown import markdown_table


def test_a_table_with_an_empty_cell():
    table = markdown_table(["name", "n", "why"], [["a", "1", ""], ["b", "", "c d"]], (0, 2))
    assert table == "| name | n | why |\n|---|--:|---|\n| a | 1 | |\n| b | | c d |\n"
