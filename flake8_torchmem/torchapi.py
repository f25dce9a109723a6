"""The one table of what names mean: optimizers, engines, guards, what ends an autograd graph, who iterates over data.

Names are evidence, never proof: what a rule needs as proof it takes from the program (`analysis.values`). Patterns are
matched against the last part of an access path, `optimizer_g` of `self.optimizer_g`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from flake8_torchmem.lazy import Words

OPTIMIZER_NAME = Words(
    r"^(?:\w+_)?(?:adam|adamw|sgd|rmsprop|adagrad)(?:_[a-z0-9])?$|optim(?!ized|ization|ize_|ize$|al)|solver|(?:^|_)opts?(?:$|_|[A-Z0-9])|[a-z]Opt(?:$|_|[A-Z])"
)
OPTIMIZER_GROUP = Words(r"^(?:optims|optimizers|optimisers|opts)$")
NOT_OPTIMIZER_NAME = Words(r"sched|_lr$|^lr_|option|config|cfg|args|params|steps?$|state|name|wd_|class|cls", re.I)
ENGINE_NAME = Words(
    r"^(?:self|super\(\)|accelerator|fabric|booster|strategy|runner|trainer|deepspeed|manager|plugin|precision)$|engine|accelerator|fabric"
)
SCHEDULER_NAME = Words(r"sched|(?:^|_)lr(?:$|_)|warmup|prof|env|sim|ema|annealer|tracker|decay|timer|pbar|bar$|logger|callback", re.I)
MODULE_NAME = Words(
    r"^(?:ddp_|base_|raw_|my_|the_)?(?:model|net|network|criterion|loss_fn|loss_func|loss_function|encoder|decoder|backbone"
    r"|classifier|generator|discriminator|critic|actor|policy|unet|vae|policy_net|target_net|q_net|qnet|netG|netD|net_g|net_d"
    r"|[GD]|net_?[GD]_?\w{0,4}|generator_\w+|discriminator_\w+|model_(?!pred|input|output|arg|kwargs|config|name|path|dir|time)\w{1,12}|\w{1,12}_model|\w{1,12}_net|criterion_?\w{0,12}|\w{1,12}_criterion)$"
)
# What has functions of such names that are no modules: `writer.generator(...)`, `np.random.generator(...)`.
HOLDS_NO_MODULES = Words(
    r"writer|logger|parser|client|data|loader|tokenizer|random|rng|^np$|^os$|builder|factory|registry|utils?$|config", re.I
)
NOT_MODULE_NAME = Words(
    r"^(?:prepare|build|get|load|create|make|save|init|initialize|wrap|unwrap|set|update|eval|evaluate|test|train|fit|run|setup|restore|download|import"
    r"|export|convert|find|select|copy|clone|move|delete|remove|push|log|print|summarize|freeze|unfreeze|define|construct|instantiate|generate|define)_"
)
# Objects whose calls run without gradients by themselves: pipelines, exported and wrapped predictors.
SELF_GUARDED = Words(
    r"^(?:YOLO\w*|RTDETR|FastSAM|pipeline|\w{0,80}Pipeline\w{0,80}|InferenceSession|Interpreter|AutoBackend|SentenceTransformer|\w*Predictor)$"
)
CRITERION_NAME = Words(r"criterion|loss_?(?:fn|func|function)$|_loss$|^loss_\w+$|(?:Loss|Criterion)$", re.I)
LOSS_NAME = Words(
    r"(?:^|_)(?:loss(?:es)?|mse|mae|ce|bce|nll|kl|kld|l1|l2|recon|reconstruction|rec|reg|adv|perceptual|commit|aux|elbo|ppl_loss)(?:$|_|\d)"
    r"|loss|Loss|err[DG]$",
    re.I,
)
METRIC_NAME = Words(r"acc|accuracy|correct|count|num|prec|top[15k]|iou|f1|auc|n_|hits|id|len|lr|step|epoch|time|score", re.I)
DATA_NAME = Words(
    r"(?:loader|dataset|batch(?:es)?|iterator|train_set|test_set|val_set|prefetcher|samples|(?:^|_|train|test|val)(?:data|dl|iter|ds))s?(?:$|_|\d)"
    r"|tqdm|pbar|progress",
    re.I,
)
EPOCH_NAME = Words(r"epoch|fold|run|trial|seed|model|config|cfg|task|stage|phase|checkpoint|ckpt|rounds?$", re.I)
EVAL_NAME = Words(
    r"(?:^|_)(?:eval|evaluate|evaluation|evaluator|val|vali|valid|validate|validation|test|testing|predict|prediction|predictions|infer|inference"
    r"|extract|generate|sample|translate|embed)(?:$|_)"
)
# Test runners call these before each test, of which each has an object of its own.
SETS_UP_TESTS = frozenset({"setUp", "asyncSetUp", "setup_method"})
BATCH_METHOD = Words(
    r"^_?(?:train(?:ing)?_(?:step|batch|minibatch|iter|iteration)|training_step_end|train_step_single|fit_(?:batch|step)|train_on_batch"
    r"|train_one_(?:batch|step|iter)|optimize_parameters|compute_loss|handle_batch|process_batch|run_step|after_(?:train_iter|batch|loss|pred)"
    r"|on_\w*batch_(?:start|end)|\w*_batch_end)$"
)
EVALUATION_STEPS = frozenset({"validation_step", "test_step", "predict_step"})
ENGINE_GUARDED = EVALUATION_STEPS | {"validation_epoch_end", "test_epoch_end", "on_validation_epoch_end"}
CHECKPOINT_NAME = Words(r"ckpt|checkpoint|chkpt|check_?point|state_?dict|^state$|weights|pretrained|^saved|snapshot|resume", re.I)
CHECKPOINT_KEYS = frozenset(
    (
        "state_dict model optimizer model_state_dict optimizer_state_dict optimizer_state scheduler ema scaler lr_scheduler model_state"
        " optim netG netD teacher student model_state_dict_ema"
    ).split()
)

NO_GRAD = frozenset({"no_grad", "inference_mode"})
NO_GRAD_LIKE = Words(r"no_?grad|inference|eval_?mode|evaluating|eval_decorator|test_?mode|disable_grad|without_grad", re.I)
GRAD_SWITCH = "set_grad_enabled"
CLEARS_BY_NAME = Words(r"(?:zero|clear|reset|clean|wipe|empty)_?(?:the_?)?grad|cleargrads|grads?_(?:zero|reset|clear)|^zero_$", re.I)
HARMLESS_TO_GRADIENTS = Words(
    r"(?:^|_)(?:lr|learning|rate|save|load|checkpoint|ckpt|log|logger|logging|eval|evaluate|valid|validate|val|test|clip|norm|ema|watch|print|state|dict|info|summary"
    r"|sched|scheduler|warmup|master|count|num|size|plot|visualize|show|len|list|dump|write|writer|isinstance|hasattr|getattr|append|parameters|named"
    r"|parallel|cuda|sync|mark|autocast|barrier|rank|accumulate|unwrap|gather|flops|profile|to|train|adjust|set|get|is|has|should|can|need|needs|must|check|ready|due|freeze|unfreeze|require|requires|scale|unscale|infer|predict|generate|sample|encode|decode|forward)(?:$|_)|^optimizers$",
    re.I,
)
MAY_TOUCH_GRADIENTS = Words(r"grad|optim|zero|reset|clear|before|after|begin|hook|pre_|post_|callback|_step$|^step$|^on_", re.I)

WORK_NAME = Words(r"(?:^|_)(?:train|fit|eval|evaluate|valid|validate|test|run|main_worker|learn|train_loop)(?:$|_)", re.I)
REPORTS = Words(r"plot|vis|log|meter|stat|lr|ema|avg|average|progress|metric|print|bar|hist|board", re.I)
MAY_TAKE_LOSS = Words(r"(?:^|_)(?:update|learn|step|train)(?:$|_)", re.I)
TAKES_LOSS = Words(r"backward|backprop|optimi[sz]e|loss_scaler|reinforce|finish_episode", re.I)

NUMBER_METHODS = frozenset(
    (
        "item tolist numpy size dim numel nelement stride ndimension is_contiguous data_ptr get_device element_size index count"
        " keys format join split strip startswith endswith isoformat total_seconds elapsed_time"
    ).split()
)
DETACHING_METHODS = frozenset(
    (
        "detach detach_ argmax argmin argsort eq ne gt lt ge le isnan isfinite isinf long int short byte bool nonzero bincount"
        " any all multinomial new_zeros new_ones new_tensor new_full new_empty equal allclose logical_and logical_or logical_not"
        " bernoulli sign_ zero_"
    ).split()
)
NUMBER_ATTRIBUTES = frozenset("shape ndim dtype device is_cuda requires_grad grad_fn is_leaf names layout itemsize avg".split())
DETACHED_ATTRIBUTES = frozenset({"data", "grad"})
NUMBER_FUNCTIONS = frozenset(
    ("float int len bool str repr round isinstance type format id hash hasattr range time callable ord input open print issubclass").split()
)
NUMBER_NAMESPACES = (
    "numpy.",
    "math.",
    "time.",
    "random.",
    "os.",
    "json.",
    "datetime.",
    "sklearn.",
    "scipy.",
    "pandas.",
    "re.",
    "sys.",
    "logging.",
)
DETACHED_TORCH = frozenset(
    (
        "argmax argmin argsort eq ne gt lt ge le isnan isfinite isinf zeros ones tensor rand randn randint full arange linspace"
        " empty zeros_like ones_like rand_like randn_like full_like empty_like from_numpy as_tensor load LongTensor FloatTensor"
        " Tensor bincount multinomial equal allclose eye unique randperm bernoulli nonzero logical_and logical_or histc device"
        " Size Generator manual_seed normal"
    ).split()
)
# In one process these hand back what they were given.
TENSOR_METHODS = frozenset(
    (
        "mean sum view reshape squeeze unsqueeze transpose permute to cuda cpu float half contiguous clone flatten expand repeat"
        " gather index_select pow sqrt abs exp log softmax log_softmax chunk split t norm max min matmul mm bmm mul add sub div"
        " clamp masked_select masked_fill values items expand_as view_as type_as narrow unbind select std var sigmoid tanh relu"
        " backward"
    ).split()
)
# Methods that nothing else has which can be the key of a cache: arrays cannot. Sizes have a `numel`, trees have `children`.
OF_TENSORS = frozenset(
    (
        "unsqueeze squeeze permute detach cuda cpu contiguous requires_grad_ masked_fill repeat_interleave unbind new_zeros"
        " new_ones backward softmax log_softmax sigmoid relu matmul bmm flatten"
    ).split()
)
OF_MODULES = frozenset("parameters named_parameters named_modules named_children state_dict named_buffers".split())
GATHERS = frozenset({"gather", "gather_for_metrics"})
LEARNER_NAME = Words(r"^self$|agent|policy|learner|trainer|algo|brain|optim|actor|critic", re.I)
DETACHES_BY_NAME = Words(r"detach|repackage|to_?numpy|to_?item|tensor2float|^as_float")
PAIR_RESULT = frozenset(("max min topk sort kthvalue median mode cummax cummin").split())
INDEX_FIELDS = frozenset({"indices"})
MODULE_WRAPPERS = frozenset(
    {"DataParallel", "DistributedDataParallel", "DDP", "compile", "convert_sync_batchnorm", "FullyShardedDataParallel", "FSDP", "script"}
)
MODULE_FACTORY = Words(
    r"^(?:torch\.nn\.(?!functional|init|utils|parallel\.scatter)[\w.]*[A-Z]\w*$|torchvision\.models\.|timm\.create_model|monai\.networks\.)"
)
MODULE_BASE = Words(r"(?:^|\.)(?:\w*Module|\w*PreTrainedModel|LightningModule)$")
OPTIMIZER_FACTORY = Words(r"(?:^|\.)optim(?:\.|$)|optimi[sz]er", re.I)
MODULE_TRANSPARENT = frozenset(("to cuda cpu half float double bfloat16 train eval requires_grad_ module share_memory").split())
# Calls by which a program says how its worker processes are started.
START_METHODS = frozenset({"set_start_method", "set_forkserver_preload", "get_context"})
SAME_ELEMENTS = frozenset(("enumerate tqdm zip reversed sorted list tuple iter trange track islice chain cycle next").split())
GROWING_METHODS = {"append": "append", "extend": "extend", "appendleft": "append", "insert": "append", "add": "add"}


@lru_cache(maxsize=8192)
def last(path: str) -> str:
    """The last part of an access path, without subscripts: `opt` of `self.opts.opt[0]`."""
    return path.split("[", 1)[0].rpartition(".")[2] if "[" in path.rpartition(".")[2] else path.rpartition(".")[2]


@lru_cache(maxsize=8192)
def looks_like_optimizer(path: str) -> bool:
    """Whether the last part of the path is a name that people give to optimizers."""
    base, key = path.rpartition("[")[0::2] if path.endswith("]") else ("", "")
    words = [last(path), last(base), key.strip("'\"]")] if base else [last(path)]
    if any(OPTIMIZER_NAME.search(word) and not NOT_OPTIMIZER_NAME.search(word) for word in words):
        return True
    return bool(OPTIMIZER_GROUP.match(last(path.rpartition(".")[0])))


@lru_cache(maxsize=8192)
def looks_like_scheduler(path: str) -> bool:
    """Whether something with a `step` method is named as a scheduler, profiler, environment or the like."""
    return bool(SCHEDULER_NAME.search(last(path)))


def resolve(path: str, imports: dict[str, str]) -> str:
    """The path with its first part replaced by what was imported under that name."""
    head, dot, tail = path.partition(".")
    full = imports.get(head)
    return f"{full}{dot}{tail}" if full else path


def takes_loss(method: str, receiver: str | None) -> bool:
    """Whether a call by this name back-propagates what it is given; `update` and `step` only of something that learns."""
    if TAKES_LOSS.search(method):
        return True
    if not MAY_TAKE_LOSS.search(method) or REPORTS.search(method):
        return False
    return receiver is None or bool(LEARNER_NAME.search(last(receiver)))
