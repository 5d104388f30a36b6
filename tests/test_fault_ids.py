"Every fault of the order path has a test that carries its id, or one line that says what is missing."

import fault_report
from fault_report import IDS, PENDING, ids_of, written


def test_every_fault_has_a_test_or_says_what_is_missing():
    found = written()
    assert [i for i in IDS if i not in found and i not in PENDING] == []


def test_what_is_missing_is_said_once_and_in_words():
    assert set(PENDING) <= set(IDS) and all(why.endswith("yet") or "yet;" in why for why in PENDING.values())


def test_a_fault_without_a_test_is_found(tmp_path):
    (tmp_path / "test_x.py").write_text('LOST = {\n    "F3_accepted": 1,\n}\n\ndef test_F1_F2_two(): ...\n\ndef test_other_F99(): ...\n')
    (tmp_path / "test_simulator_y.py").write_text("def test_F4_not_the_desk(): ...\n")
    assert set(written(tmp_path)) == {"F1", "F2", "F3"}
    assert ids_of("_F17_F18_canceling_what") == ["F17", "F18"] and ids_of("_a_F1b_c") == []


def test_an_unknown_fault_is_refused(capsys):
    assert fault_report.main(["F46"]) == 2 and "F46" in capsys.readouterr().err


def test_every_planted_mistake_still_has_its_place():
    from order_mutants import MUTANTS, ROOT

    places = {m.name: (ROOT / "v23" / m.module).read_text(encoding="utf-8").count(m.old) for m in MUTANTS}
    assert len(places) >= 12 and {name: n for name, n in places.items() if n != 1} == {}
