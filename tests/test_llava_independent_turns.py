"""Turns that do not see each other, and logits at labelled tokens alone: the losses of the plain computation."""

from dataclasses import replace

import pytest
import torch
from conftest import flags
from tiny.llava import WRITERS, picture, write_conversations

from common.text.conversations import IMAGE, Turn, parse_conversation, read_conversations
from llava import train
from llava.checkpoint import end_tokens, load_image_text_model
from llava.dataset import ConversationCollator, ConversationTokenizer
from llava.tokens import ChatFormatter
from llava.trainer import LlavaTrainer


def about(text, conversation, turn):
    """One turn as a conversation of its own."""
    question = conversation.turns[turn].question.replace(f"{IMAGE}\n", "")
    turns = [
        {"from": "human", "value": f"{IMAGE}\n{question}"},
        {"from": "gpt", "value": conversation.turns[turn].answer},
    ]
    return parse_conversation({"image": text, "conversations": turns})


@pytest.mark.parametrize("name", WRITERS)
def test_independent_turns_have_the_losses_of_single_conversations(llava_folders, name, tmp_path):
    model, processor = loaded = load_image_text_model(str(llava_folders[name]), device="cpu")
    formatter, collate = ChatFormatter(processor), ConversationCollator(processor)
    conversations, _ = read_conversations(write_conversations(tmp_path, 3))

    def losses(rows, images, **options):
        """Sum over the labelled tokens, with their number."""
        tokenizer = ConversationTokenizer(formatter, end_tokens(loaded), 2048, **options)
        pictures = [[image] for image in images] or [[]] * len(rows)
        batch = collate([(tokenizer(row, [one.size for one in some]), some) for row, some in zip(rows, pictures)])
        with torch.no_grad():
            loss = model(**batch).loss
        count = int((batch["labels"] >= 0).sum())
        return float(loss) * count, count, batch["input_ids"].numel()

    images = [picture(number, (40 + 12 * number, 40)) for number in range(3)]
    together, count, tokens = losses(conversations, images, independent_turns=True)
    singles = [about("a.png", conversation, turn) for conversation in conversations for turn in range(2)]
    apart, single_count, single_tokens = losses(singles, [image for image in images for _ in range(2)])
    assert count == single_count and tokens < single_tokens
    assert together == pytest.approx(apart, rel=1e-5)
    turns = [(Turn("Is it red?", one.turns[0].answer), one.turns[1]) for one in conversations]  # without an image
    unseen = [replace(one, turns=pair, images=()) for one, pair in zip(conversations, turns)]
    alone = [replace(one, turns=(turn,)) for one in unseen for turn in one.turns]
    assert losses(unseen, [], independent_turns=True)[0] == pytest.approx(losses(alone, [])[0], rel=1e-5)
    dependent, _, _ = losses(conversations, images)
    assert abs(dependent - apart) > 1e-3 * apart
    length = losses(conversations[:1], images, independent_turns=True)[2]
    short = ConversationTokenizer(formatter, end_tokens(loaded), length - 1, independent_turns=True)
    sample = short(conversations[0], [images[0].size])
    assert len(sample.conversation.turns) == 1 and max(sample.turn_numbers) == 1


def test_logits_of_labelled_tokens_give_the_same_loss(llava_folders, tmp_path):
    model, processor = load_image_text_model(str(llava_folders["llava"]), device="cpu")
    tokenizer = ConversationTokenizer(ChatFormatter(processor), ["</s>"], 2048)
    conversations, _ = read_conversations(write_conversations(tmp_path, 2))
    collate = ConversationCollator(processor)
    batch = collate([(tokenizer(row, [(40, 40)]), [picture(0)]) for row in conversations])
    chosen = flags(model_id="m", data="d", output_dir=tmp_path / "run", use_cpu=True, eval_strategy="no")
    args = train.read_arguments(chosen)[1]
    trainer = LlavaTrainer(model, args, data_collator=collate, train_dataset=[0], processing_class=processor)
    loss, outputs = trainer.compute_loss(model, batch, return_outputs=True)
    assert loss.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    assert len(outputs.logits) == int((batch["labels"] >= 0).sum())
    (gradient,) = torch.autograd.grad(loss, model.lm_head.weight)
    (plain,) = torch.autograd.grad(model(**batch).loss, model.lm_head.weight)
    assert torch.allclose(gradient, plain, atol=1e-6)


def test_a_run_with_independent_turns(llava_arguments, tmp_path):
    def first_loss(independent_turns):
        changes = flags(independent_turns=independent_turns, max_steps=1, output_dir=tmp_path / independent_turns)
        return train.main([*llava_arguments, *changes])["train"][0]["loss"]

    assert abs(first_loss("true") - first_loss("false")) > 1e-3
    with pytest.raises(ValueError, match="--attention eager"):
        train.main([*llava_arguments, *flags(independent_turns="true", attention="eager", output_dir=tmp_path / "b")])
