"""The faults of `make mutants` fit the code: a fault whose text is gone would be planted nowhere."""

from collections import Counter

from tests.mutants.faults_file import ROOT, read_faults


def test_each_fault_fits_its_file() -> None:
    for fault in read_faults():
        assert (ROOT / fault.file).read_text().count(fault.old) == 1, fault.name
        assert fault.new != fault.old, fault.name


def test_each_fault_names_tests_that_exist() -> None:
    for fault in read_faults():
        paths = [one for one in fault.tests if one.startswith("tests/")]
        assert paths, fault.name
        assert all((ROOT / path.split("::")[0]).exists() for path in paths), fault.name


def test_names_are_unique() -> None:
    assert max(Counter(fault.name for fault in read_faults()).values()) == 1
