import io
import itertools
import json

import pytest
from PIL import Image

from vinegrape_loadtests.response_checks import Answers
from vinegrape_loadtests.sample_requests import draw_questions

QUESTIONS = draw_questions()


def test_the_photo_is_one_of_a_phone():
    photo = Image.open(io.BytesIO(QUESTIONS["photo"].body))
    assert photo.format == "JPEG"
    assert photo.width * photo.height >= 12e6
    assert photo.getexif()[0x0112] == 6
    assert len(QUESTIONS["photo"].body) > 2e6


def test_drawing_again_gives_the_same_bytes():
    assert draw_questions() == QUESTIONS


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_server_answers_as_expected_over_rest_and_grpc(server, name):
    question, answers = QUESTIONS[name], Answers(tolerance=0)
    rest = server.post(question.body, headers={"content-type": question.content_type})
    answers.check(question, rest.content, rest.status_code)
    answers.check(question, server.call(question.body), None)


def test_pictures_have_answers_that_tell_them_apart(server):
    """Else an answer to another picture would not be noticed."""
    named = [(name, question) for name, question in QUESTIONS.items() if question.expected == (name,)]
    answers = [json.loads(server.post(question.body).content)["probabilities"] for _, question in named]
    assert len(answers) == 3
    for one, other in itertools.combinations(answers, 2):
        assert max(abs(one[label] - other[label]) for label in one) > 0.05
