"""examples/: they run, and do what they show."""

from conftest import flags

from examples import style_vlm


def test_a_language_model_reads_styles_from_the_style_vector(trained, capsys):
    weights, data = trained
    run = flags(data_dir=data, style_encoder=weights, steps=50)
    scores = style_vlm.main(run)
    assert scores.keys() == {"which style", "yes or no"} and scores["which style"] > 0.5  # of three styles
    shown = capsys.readouterr().out
    assert "In which style is this drawn? style_" in shown and "right answers on held-out images: which" in shown
