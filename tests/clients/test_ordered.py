from concurrent.futures import ThreadPoolExecutor

import pytest

from vinegrape_client.ordered import map_in_order


def test_items_are_taken_as_they_are_needed_and_results_are_in_order():
    taken = []

    def numbers():
        for number in range(20):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(3) as pool:
        results = map_in_order(pool, lambda number: number**2, numbers(), ahead=5)
        assert taken == []
        for number in range(20):
            assert next(results) == number**2
            assert len(taken) <= number + 5
        assert list(results) == []


def test_an_exception_is_raised_in_its_turn():
    with ThreadPoolExecutor(2) as pool:
        results = map_in_order(pool, lambda number: 1 // number, [1, 0, 1], ahead=3)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
