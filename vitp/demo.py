"""What `train.py --demo` trains, on what, how well it then answers, and what its vision encoder has gained.

drawn scenes -> tokenizer, two small config.json, flags for train.py -> answers about unseen scenes against the truth
vision encoder before and after -> unseen drawings of single things, found by kind
"""

import contextlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import InternVLVisionConfig, LlamaConfig, PreTrainedTokenizerFast

from common.images import open_image
from common.run import write_json
from common.sample_data import MANIFEST, create_sample_dataset
from vitp import extract_vit
from vitp.conversation import INTERNVL_SYSTEM, read_conversation
from vitp.inference import Answerer
from vitp.retrieval import evaluate_retrieval, extract_features

FOLDER, OUTPUT = Path("data/vitp_demo"), "checkpoints/vitp_demo"
UNTRAINED = FOLDER / "untrained"  # the model as it begins
TRAIN_SCENES, TEST_SCENES, RETRIEVAL_IMAGES, SIZE = 4000, 150, 900, 64
SETTINGS = {
    "max_steps": 1500, "per_device_train_batch_size": 32, "learning_rate": "1e-3", "warmup_steps": 100,
    "max_dynamic_patch": 1, "max_seq_length": 512, "group_by_length": "true", "dataloader_num_workers": 1,
    "save_steps": 500, "save_total_limit": 1, "logging_steps": 50, "drop_path_rate": 0, "weight_decay": 0.05,
}  # fmt: skip
ABOUT = {  # what a question is about, by words that occur in it
    "colour": ("colour", "颜色"),
    "number": ("How many", "几"),
    "style": ("style", "风格"),
    "position": ("Where", "位置"),
    "kinds": ("Which kinds",),
    "relation": ("What is ", "Is the", "Are the"),
}


def prepare() -> list[str]:
    """Write data and the parts of a model -> flags for train.py."""
    for name, count, seed in (("train", TRAIN_SCENES, 0), ("test", TEST_SCENES, 1)):
        folder = FOLDER / name
        if not (folder / MANIFEST).is_file():
            print(f"drawing {count} scenes into {folder}")
            create_sample_dataset(folder, count, seed, "conversations", SIZE)
    create_sample_dataset(FOLDER / "retrieval", RETRIEVAL_IMAGES, 2, "retrieval", SIZE)
    _take_apart(FOLDER / "train")
    tokenizer = train_tokenizer(_texts(FOLDER / "train"))
    write_parts(FOLDER / "parts", tokenizer, width=192)
    flags = {
        "vision_config": FOLDER / "parts" / "vision.json",
        "llm": FOLDER / "parts" / "config.json",
        "meta_path": FOLDER / "train" / "turns.json",
        "output_dir": OUTPUT,
        **SETTINGS,
    }
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def examine(folder: str, questions: int = 400, batch_size: int = 32) -> dict:
    """Ask the model of `folder` about unseen scenes -> {"accuracy", "blind", "questions": {kind of question: ...}}.

    An answer counts if it is the truth word for word. blind: the best that can be had without looking, the answer that
    is most frequent in training for the same question.
    """
    asked = _questions(FOLDER / "test")[:questions]
    usual = {question: Counter() for _, question, _ in asked}
    for _, question, answer in _questions(FOLDER / "train"):
        if question in usual:
            usual[question][answer] += 1
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    answerer = Answerer(folder, device)
    right, shown = defaultdict(list), []
    for start in tqdm(range(0, len(asked), batch_size), desc="asking about unseen scenes", leave=False, disable=None):
        batch = asked[start : start + batch_size]
        answers = answerer([([open_image(image)], question) for image, question, _ in batch], max_new_tokens=40)
        for (image, question, truth), answer in zip(batch, answers):
            blind = usual[question].most_common(1)
            right[_kind(question)].append((answer == truth, bool(blind) and blind[0][0] == truth))
            shown.append({"image": str(image), "question": question, "truth": truth, "answer": answer})
    every = [pair for pairs in right.values() for pair in pairs]
    result = _shares(every) | {"questions": {kind: _shares(right[kind]) for kind in sorted(right)}}
    write_json(Path(folder) / "answers.json", {**result, "answers": shown})
    print(f"unseen scenes, answers that are word for word the truth: {result['accuracy']:.0%} "
          f"(without looking {result['blind']:.0%})")  # fmt: skip
    for kind, shares in result["questions"].items():
        print(f"  {kind:12} {shares['accuracy']:4.0%} (without looking {shares['blind']:4.0%}) of {shares['count']}")
    for one in shown[:3]:
        print(f"  {one['image']}: {one['question']} -> {one['answer']} (truth: {one['truth']})")
    return result


def compare_encoders(folder: str) -> dict:
    """Retrieval by the encoders of UNTRAINED and `folder` -> {"retrieval": {"untrained" | "trained": measures}}."""
    images = [("--image_dir", str(FOLDER / "retrieval" / side)) for side in ("query", "gallery")]
    found = {
        name: retrieve(where, *images, Path(folder) / "vit" / name)
        for name, where in (("untrained", UNTRAINED), ("trained", folder))
    }
    queries = found["trained"]["queries"]
    print(f"retrieval by the vision encoder alone, {queries} unseen drawings ask for others of their kind:")
    print(f"  {'':12}" + "".join(f"{name:>12}" for name in ("Top-1", "Top-5", "mAP", "MAP@R")))
    for name, one in found.items():
        print(f"  {name:12}" + "".join(f"{one[measure]:12.3f}" for measure in ("Top-1", "Top-5", "mAP", "MAP@R")))
    print(f"  {'chance':12}" + "".join(f"{found['trained']['chance'][name]:12.3f}" for name in ("Top-1", "Top-5")))
    write_json(Path(folder) / "retrieval.json", found)
    return {"retrieval": found}


def retrieve(
    checkpoint: str | Path, query: Sequence[str], gallery: Sequence[str], output: Path, labels: Sequence[str] = ()
) -> dict:
    """The encoder of `checkpoint`, written to <output>.pth, asks the gallery -> what evaluate_retrieval.py finds.

    query, gallery: flags of extract_features.py that name the images; labels: those of evaluate_retrieval.py that name
    their classes, otherwise their folders.
    """
    weights, features = output.with_name(f"{output.name}.pth"), []
    with contextlib.redirect_stdout(io.StringIO()):
        extract_vit.main([str(checkpoint), str(weights)])
        for side, images in (("query", query), ("gallery", gallery)):
            file = output.with_name(f"{output.name}_{side}.npz")
            file.unlink(missing_ok=True)  # of an earlier run, by other weights
            extract_features.main([*images, "--output", str(file), "--vit_checkpoint", str(weights)])
            features += [f"--{side}_features", str(file)]
        return evaluate_retrieval.main([*features, *labels, "--top_k", "1", "5"])


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text goes through it unchanged, frequent words are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def write_parts(
    folder: Path, tokenizer: PreTrainedTokenizerFast, width: int, layers: int = 4, size: int = SIZE
) -> None:
    """vision.json, config.json and the tokenizer of a model `width` wide for images of `size` pixels, patches of 8:
    what --vision_config and --llm take.

    Weights begin with a deviation of 1 / sqrt(width). The usual 0.02 is right for widths of thousands; here each layer
    would say a quarter of what it hears, and for a thousand steps nothing of an image would reach the answers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    vision = InternVLVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        image_size=size,
        patch_size=8,
        attention_bias=True,
        layer_scale_init_value=1.0,  # from scratch, a smaller one only slows the beginning
        initializer_range=width**-0.5,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=width**-0.5,
    )
    write_json(folder / "vision.json", vision.to_dict())
    write_json(folder / "config.json", text.to_dict())


def _records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "conversations.jsonl").read_text(encoding="utf-8").splitlines()]


def _take_apart(folder: Path) -> None:
    """Each turn a conversation of its own. After the description, which comes first, one need not look to answer the
    rest, and most of what is learnt would be reading."""
    lines = []
    for record in _records(folder):
        said = [turn | {"value": turn["value"].replace("<image>\n", "")} for turn in record["conversations"]]
        for question, answer in zip(said[::2], said[1::2]):
            turn = [question | {"value": f"<image>\n{question['value']}"}, answer]
            lines.append(json.dumps(record | {"conversations": turn}, ensure_ascii=False) + "\n")
    (folder / "turns.jsonl").write_text("".join(lines), encoding="utf-8")
    write_json(folder / "turns.json", {"scenes": {"root": "images", "annotation": "turns.jsonl"}})


def _texts(folder: Path) -> list[str]:
    said = [turn["value"].replace("<image>\n", "") for one in _records(folder) for turn in one["conversations"]]
    return [*said, *[f"system\n{INTERNVL_SYSTEM}\nuser\nassistant\n"] * 100]


def _questions(folder: Path) -> list[tuple[Path, str, str]]:
    """-> image, question, true answer"""
    return [
        (folder / "images" / record["image"], question.replace("<image>\n", ""), answer)
        for record in _records(folder)
        for question, answer in read_conversation(record).turns
    ]


def _kind(question: str) -> str:
    return next((kind for kind, words in ABOUT.items() if any(word in question for word in words)), "description")


def _shares(pairs: list[tuple[bool, bool]]) -> dict:
    return {
        "accuracy": sum(right for right, _ in pairs) / len(pairs),
        "blind": sum(blind for _, blind in pairs) / len(pairs),
        "count": len(pairs),
    }
