"""What people type who know other tools, and what it is called here.

A word that means the same is taken for it; where it does not, one sentence says what is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DATA: Final = "DATA"
RUN: Final = "RUN"
IMAGES: Final = "IMAGES"
_TRAINING: Final = ("train", "tune", "lr-find")
_MODELS_FILE: Final = ("test", "predict", "resume", "calibrate", "export", "publish", "drift", "suggest", "explain")


@dataclass(frozen=True)
class FamiliarWord:
    """A word of other tools: a command, or an option where it begins with dashes.

    Attributes:
        words: Its spellings, in small letters and with dashes within.
        means: What means the same here: a command, an option, or an argument, in capitals. Empty: nothing does.
        answer: Where nothing does: one sentence with what is right.
        commands: The commands in which an option is meant so; empty: all that do not have an option of that name.
    """

    words: tuple[str, ...]
    means: str = ""
    answer: str = ""
    commands: tuple[str, ...] = ()


FAMILIAR: Final[tuple[FamiliarWord, ...]] = (
    # Options that mean the same.
    FamiliarWord(("--data", "--data-dir", "--data-path", "--dataset", "--train-dir", "--input-dir"), DATA),
    FamiliarWord(("--learning-rate", "--lr0", "--base-lr", "--max-lr"), "--lr"),
    FamiliarWord(("--batch-size", "--bs", "--train-batch-size"), "--batch"),
    FamiliarWord(("--imgsz", "--img-size", "--image-size", "--img", "--input-size", "--crop-size"), "--size"),
    FamiliarWord(("--num-epochs", "--n-epochs", "--nb-epochs", "--max-epochs", "--epoch"), "--epochs"),
    FamiliarWord(
        ("--arch", "--architecture", "--network", "--backbone", "--model-name", "--net"), "--model", "", (*_TRAINING,)
    ),
    FamiliarWord(("--opt", "--optim"), "--optimizer"),
    FamiliarWord(("--wd", "--l2"), "--weight-decay"),
    FamiliarWord(("--sched", "--scheduler", "--lr-scheduler", "--lr-schedule", "--lr-scheduler-type"), "--schedule"),
    FamiliarWord(("--warmup-epochs",), "--warmup"),
    FamiliarWord(("--smoothing",), "--label-smoothing"),
    FamiliarWord(("--drop", "--drop-rate", "--dropout-rate"), "--dropout"),
    FamiliarWord(("--clip-grad", "--max-grad-norm", "--grad-clip", "--gradient-clip-val"), "--clip"),
    FamiliarWord(("--grad-accum-steps", "--gradient-accumulation-steps", "--accumulate-grad-batches"), "--accumulate"),
    FamiliarWord(("--model-ema-decay", "--ema-decay"), "--ema"),
    FamiliarWord(("--criterion", "--loss-fn"), "--loss"),
    FamiliarWord(("--random-seed", "--random-state", "--manual-seed"), "--seed"),
    FamiliarWord(("--early-stopping-patience",), "--patience"),
    FamiliarWord(("--time-limit", "--time-budget", "--max-time", "--timeout"), "--time"),
    FamiliarWord(("--val-split", "--validation-split", "--valid-pct", "--val-size"), "--val"),
    FamiliarWord(("--test-split", "--test-size"), "--test", "", ("train", "inspect", "lr-find")),
    FamiliarWord(
        ("--output", "--output-dir", "--out-dir", "--outdir", "--save-dir", "--project", "--runs-dir"), "--out"
    ),
    FamiliarWord(("--n-trials", "--num-trials", "--num-samples"), "--trials"),
    FamiliarWord(("--n-jobs",), "--jobs"),
    FamiliarWord(("--topk", "--top-k"), "--top"),
    FamiliarWord(("--num-classes", "--nc"), "--classes", "", ("models",)),
    FamiliarWord(("--run", "--model", "--checkpoint", "--ckpt", "--model-path"), RUN, "", _MODELS_FILE),
    FamiliarWord(("--source", "--image", "--images", "--input"), IMAGES, "", ("predict", "explain")),
    FamiliarWord(("--to-format", "--export-format"), "--format"),
    FamiliarWord(("--quantize", "--quantise"), "--int8"),
    # Options for which there is another way.
    FamiliarWord(
        ("--pretrained", "--no-pretrained"),
        "",
        "Networks begin with ImageNet weights unless --weights says otherwise: --weights none begins with random ones.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--from-scratch",),
        "",
        "Say --weights none --freeze none: random weights, and all layers are trained.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--fine-tune", "--finetune", "--unfreeze", "--full-finetune"),
        "",
        "Say --freeze none, which trains all layers, or --freeze upto:STAGE, which trains those after a stage.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--freeze-backbone", "--linear-probe", "--feature-extract"),
        "",
        "Say --freeze trunk, which trains the head alone and is what happens when nothing is said.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--augment", "--augmentation", "--aug", "--data-augmentation", "--auto-augment", "--aa"),
        "",
        "Each augmentation is an option of its own: --flip 0.5 --rotation 15, or --policy trivialaugment.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--nested", "--recursive"),
        "",
        "Say --label-from top, parent or path: the class of an image in a folder in a class folder.",
    ),
    FamiliarWord(("--hflip", "--fliplr", "--horizontal-flip"), "--flip"),
    FamiliarWord(("--vflip", "--flipud", "--vertical-flip"), "--flip-vertical"),
    FamiliarWord(("--degrees", "--rotate"), "--rotation"),
    FamiliarWord(("--reprob", "--random-erase"), "--erase"),
    FamiliarWord(
        ("--amp", "--fp16", "--half", "--bf16", "--mixed-precision", "--use-amp"),
        "",
        "Say --precision bfloat16; unless something else is said, a GPU that has bfloat16 trains in it anyway.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--workers", "--num-workers", "--n-workers", "--threads", "--num-threads", "-j"),
        "",
        "There is nothing to set: Budwood uses all processors that it may; OMP_NUM_THREADS=N gives networks fewer.",
    ),
    FamiliarWord(
        ("--gpu", "--gpus", "--gpu-id", "--cuda", "--use-gpu", "--accelerator", "--no-cuda", "--cpu"),
        "",
        "Say --device cuda, --device cuda:1, --device mps or --device cpu; the fastest that is there is used anyway.",
    ),
    FamiliarWord(
        ("--resume", "--resume-from", "--resume-from-checkpoint", "--continue"),
        "",
        "Say `budwood resume RUN`, which goes on with an interrupted training.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--checkpoint", "--ckpt", "--initial-checkpoint"),
        "",
        "Say --weights FILE (.pth, .safetensors), or --weights run:ID for those of an earlier run.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--early-stopping", "--early-stop"),
        "",
        "Say --patience N: the epochs without improvement to wait for.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--monitor", "--eval-metric"),
        "",
        "Say --select METRIC, such as --select accuracy: the epoch is kept that is best by it on validation.",
        ("train", "lr-find"),
    ),
    FamiliarWord(
        ("--num-classes", "--classes", "--nc"), "", "There is nothing to set: the classes are those of DATA.", _TRAINING
    ),
    FamiliarWord(
        ("--val-dir", "--valid-dir", "--test-dir", "--val-data", "--test-data"),
        "",
        "Put the splits into one folder, as DATA/train, DATA/val and DATA/test, or into a table with a column split.",
        ("train", "inspect", "lr-find"),
    ),
    FamiliarWord(
        ("--tensorboard", "--wandb", "--mlflow", "--logger", "--report-to"),
        "",
        "Say --track tensorboard or --track mlflow; history.csv is always written.",
        ("train",),
    ),
    FamiliarWord(
        ("--config", "--cfg", "--hyp"),
        "",
        "Say --recipe FILE: a TOML file with options such as `epochs = 20`, as each run keeps one in recipe.toml.",
        _TRAINING,
    ),
    FamiliarWord(
        ("--conf", "--confidence", "--conf-thres"), "", "Say `budwood calibrate RUN --refuse SHARE`.", ("predict",)
    ),
    FamiliarWord(
        ("--verbose", "-v"), "", "Progress is always told on stderr; --debug shows the traceback of an error."
    ),
    # Commands that mean the same.
    FamiliarWord(("fit",), "train"),
    FamiliarWord(("infer", "inference", "classify"), "predict"),
    FamiliarWord(("convert",), "export"),
    FamiliarWord(("lrfind", "find-lr", "lr-finder"), "lr-find"),
    FamiliarWord(("explore", "check", "analyze", "analyse", "lint"), "inspect"),
    FamiliarWord(("hpo", "sweep", "optimize", "optimise", "hyperopt"), "tune"),
    FamiliarWord(("push", "upload", "push-to-hub"), "publish"),
    FamiliarWord(("gradcam", "grad-cam", "heatmap", "interpret"), "explain"),
    FamiliarWord(("list-models", "networks"), "models"),
    # Commands for which there is another way.
    FamiliarWord(
        ("val", "valid", "validate", "evaluate", "eval", "score"),
        "",
        "Validation scores are in what `budwood train` prints and in report.html; `budwood test RUN` opens the sealed "
        "test split.",
    ),
    FamiliarWord(("finetune", "fine-tune"), "", "Say `budwood train DATA --freeze none`."),
    FamiliarWord(("continue",), "", "Say `budwood resume RUN`."),
    FamiliarWord(
        ("serve", "deploy"), "", "Say `budwood export RUN --to DIR --format web`, or --format onnx for a file."
    ),
    FamiliarWord(("benchmark", "leaderboard"), "", "Say `budwood compare RUN RUN...`, or give it a folder of runs."),
    FamiliarWord(
        ("plot", "show", "view"), "", "Say `budwood report RUN`, which writes report.html and prints its path."
    ),
    FamiliarWord(("search", "automl"), "", "Say `budwood train DATA --time 20m`, which searches for the best network."),
    FamiliarWord(("clean", "clear"), "", "Say `budwood cache --clear`."),
    FamiliarWord(("yolo",), "", "Say `budwood train DATA`; options have dashes, as --epochs 3."),
    FamiliarWord(("help",), "", "Say `budwood --help`, or `budwood train --help` for one command."),
    FamiliarWord(("version",), "", "Say `budwood --version`."),
)


def find_familiar(word: str, command: str = "") -> tuple[FamiliarWord, ...]:
    """Find what a word means that other tools use.

    Args:
        word: The word in small letters and with dashes within; an option begins with dashes.
        command: The command in which an option was given.

    Returns:
        The records, those for this command alone before those for all.
    """
    found = [one for one in FAMILIAR if word in one.words and (not one.commands or command in one.commands)]
    return tuple(sorted(found, key=lambda one: not one.commands))
