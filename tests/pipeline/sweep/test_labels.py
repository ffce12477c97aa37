"""Names beside marks: on no other name, on no mark, and inside the picture as long as there is room."""

from itertools import combinations

from pipeline.sweep.labels import Box, place_labels

FRAME = Box(0, 0, 500, 300)


def test_a_mark_alone_has_its_name_to_the_right():
    (label,) = place_labels([(100, 100)], [(40, 10)], [Box(99, 50, 101, 150)], FRAME)
    assert label.to_the_right and label.box == Box(108, 95, 148, 105)


def test_a_name_that_would_leave_the_frame_or_lie_on_a_bar_goes_to_the_left():
    (label,) = place_labels([(490, 100)], [(40, 10)], [], FRAME)
    assert not label.to_the_right and label.box == Box(442, 95, 482, 105)
    bars = [Box(99, 50, 101, 150), Box(119, 50, 121, 150)]
    assert not place_labels([(100, 100)], [(40, 10)], bars, FRAME)[0].to_the_right


def test_names_of_marks_close_together_lie_apart():
    marks = [(100 + 9 * (i % 5), 100 + 12 * (i // 5)) for i in range(15)]
    labels = place_labels(marks, [(60, 10)] * 15, [], FRAME)
    boxes = [label.box for label in labels]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert not [box for box in boxes for x, y in marks if box.overlaps(Box(x - 5, y - 5, x + 5, y + 5))]
    assert all(box.within(FRAME) for box in boxes)


def test_where_there_is_no_room_every_mark_has_a_name_all_the_same():
    assert len(place_labels([(10, 10)] * 40, [(400, 200)] * 40, [], FRAME)) == 40
