"""What users of timm, Lightning, Accelerate and Hugging Face's Trainer type by habit, and what to type here instead."""

_HINTS = {
    "use --lr 0.01": "learning-rate base-lr init-lr max-lr peak-lr blr",
    "use --arch for where the transformer is and --net for the classifier; --list has their names": (
        "model model-name model-name-or-path model-type architecture backbone encoder network"
    ),
    "use --optim.name sgd or adamw": "optimizer optimiser opt optim",
    "use --optim.betas 0.9 0.999": "adam-beta1 adam-beta2 beta1 beta2 opt-betas adam-betas",
    "use --optim.weight-decay 0.0005": "wd l2 l2-reg",
    "use --optim.schedule onecycle (or constant, step, multistep, cosine)": (
        "sched scheduler lr-scheduler lr-scheduler-type lr-schedule lr-policy"
    ),
    "use --optim.warmup '2 epochs'": "warmup-epochs warmup-steps num-warmup-steps lr-warmup-epochs warmup-ratio",
    "use --optim.schedule multistep --optim.milestones '10 epochs' '20 epochs'": (
        "lr-steps decay-milestones lr-milestones"
    ),
    "use --optim.schedule step --optim.step-every '15 epochs'": "step-size lr-step-size decay-epochs lr-decay-epochs",
    "use --optim.final-factor 0.01: onecycle and cosine end at --lr times this": (
        "min-lr lr-min eta-min end-lr final-lr"
    ),
    "use --optim.start-factor 0.04: onecycle starts at --lr times this; other schedules warm up from 0": (
        "warmup-lr warmup-lr-init lr-warmup-decay warmup-start-lr"
    ),
    "use --optim.gamma 0.1": "decay-rate lr-gamma lr-decay",
    "use --optim.label-smoothing 0.1": "smoothing label-smoothing-factor",
    "use --optim.clip 1.0": "clip-grad grad-clip gradient-clip-val max-grad-norm clip-grad-norm gradient-clipping",
    "use --optim.accumulate 4: the batch is computed in that many parts, and its size stays": (
        "grad-accum-steps gradient-accumulation-steps accumulate-grad-batches accum-iter grad-accumulation accum-steps"
    ),
    "use --epochs 8": "max-epochs num-epochs num-train-epochs n-epochs nepochs epoch e",
    "use --steps 1000": "max-steps num-steps max-train-steps max-iter max-iters total-steps train-steps num-iterations",
    "use --train.time-limit MINUTES": "max-time",
    "use --seeds 0, or --seeds 0-9 for ten at once": "seed random-seed manual-seed random-state",
    "use --batch-size 128: the images of a step over all processes together": (
        "b bs batch train-batch-size per-device-train-batch-size batch-size-per-gpu mini-batch-size"
    ),
    "use --eval.batch-size 1000": (
        "eval-batch-size val-batch-size validation-batch-size test-batch-size per-device-eval-batch-size"
    ),
    "use --precision bf16": "amp amp-dtype native-amp apex-amp use-amp fp16 bf16 half dtype torch-dtype",
    "use --precision bf16, or before the script: accelerate launch --mixed_precision bf16 train.py": "mixed-precision",
    "use --train.tf32": "allow-tf32 use-tf32",
    "use --train.compile": "torchcompile torch-compile use-compile",
    "repeat the command; it resumes by itself": (
        "resume resume-from-checkpoint resume-from auto-resume ckpt-path ckpt checkpoint-path load-checkpoint restore "
        "start-epoch initial-epoch"
    ),
    "use --retrain if other code has trained this; a run is never overwritten otherwise": (
        "overwrite-output-dir overwrite force no-resume"
    ),
    "training starts from random weights; python -m stn evaluate --weights FILE --recipe NAME evaluates others": (
        "pretrained initial-checkpoint weights load-weights finetune init-weights"
    ),
    "use --runs DIR": (
        "output-dir output out out-dir outdir log-dir logdir logging-dir save-dir save-path default-root-dir work-dir "
        "checkpoint-dir exp-dir results-dir project-dir"
    ),
    "use --name NAME": "experiment experiment-name exp-name run-name exp job-name",
    "use --data-root DIR": "data-dir data-path datadir dataroot dataset-dir dataset-path data-folder root-dir",
    "use --dataset mnist; --list has the names": (
        "data dataset-name task-name dataset-config-name train-data train-file"
    ),
    "make train takes every GPU; accelerate launch --num_processes N train.py takes N, python train.py one": (
        "gpus devices ngpus ngpu num-gpus n-gpu n-gpus nproc-per-node num-processes world-size nprocs num-devices"
    ),
    "training runs on a GPU if there is one; to choose, set CUDA_VISIBLE_DEVICES (2: the third GPU, empty: the CPU)": (
        "device gpu gpu-id gpu-ids cuda no-cuda use-cuda use-gpu cpu use-cpu accelerator device-id"
    ),
    "the launcher says it; start the processes with accelerate launch or torchrun": (
        "local-rank rank dist-url dist-backend master-port master-addr node-rank machine-rank"
    ),
    "use --parallel data (ranks share each batch) or seeds (each rank has its own)": (
        "strategy distributed ddp distributed-backend multiprocessing-distributed data-parallel"
    ),
    "use accelerate launch --num_machines N ... train.py, or on Slurm sbatch --nodes N slurm/train.sh": (
        "num-nodes nnodes num-machines nodes"
    ),
    "batch norm has the statistics of the whole batch by itself; leave it out": "sync-bn sync-batchnorm dist-bn",
    "leave it out: the data set stays in memory, and no worker processes load it": (
        "num-workers workers j num-data-workers dataloader-num-workers pin-mem pin-memory prefetch-factor "
        "persistent-workers dataloader-pin-memory"
    ),
    "use --log.every '50 steps'": (
        "log-interval log-every-n-steps logging-steps print-freq log-freq log-every log-steps logging-interval"
    ),
    "use --eval.every '1 epochs'": (
        "eval-interval eval-steps val-interval check-val-every-n-epoch val-check-interval evaluation-strategy "
        "eval-strategy eval-freq eval-every val-freq val-every"
    ),
    "use --checkpoint.every '1 epochs'": (
        "save-interval save-steps save-freq save-every checkpoint-interval checkpoint-every checkpointing-steps "
        "save-strategy every-n-epochs recovery-interval"
    ),
    "use --checkpoint.keep 2": "checkpoint-hist save-total-limit save-top-k keep-checkpoints",
    "use --checkpoint.keep-best": "save-best load-best-model-at-end keep-best-checkpoint",
    "use --log.wandb online, offline or disabled": "log-wandb use-wandb report-to logger wandb-mode log-to-wandb",
    "use --log.wandb disabled": "no-wandb disable-wandb wandb-disabled no-log-wandb no-use-wandb no-tracking no-logger",
    "leave it out: runs are logged to W&B wherever you are logged in; --log.wandb offline or disabled changes that": (
        "with-tracking tracking"
    ),
    "leave it out: W&B's files are kept in the run directory, below --runs DIR": "wandb-dir",
    "use --log.wandb-project NAME": "project project-name wandb-project-name",
    "use --log.wandb-entity NAME": "entity team wandb-team",
    "use --log.wandb-tags A B": "tags tag wandb-tag",
    "use --log.wandb-notes TEXT": "notes",
    "use --log.wandb-group NAME": "group wandb-run-group",
    "use --log.wandb-artifact": "log-model upload-model wandb-log-model",
    "use --log.wandb or --log.tensorboard; afterwards python -m launch export RUN --to mlflow (trackio, csv)": (
        "trackers log-with mlflow trackio report-to-mlflow"
    ),
    "use --log.tensorboard": "use-tensorboard tb",
    "use --train.threads N": "num-threads torch-num-threads cpu-threads",
    "use --limit-train N": "max-train-samples limit-train-batches train-subset max-samples subset num-train",
    "use --limit-test N": "max-eval-samples limit-val-batches limit-test-batches max-test-samples max-val-samples",
    "use --check, which trains nothing, or a short run: --steps 10 --limit-train 1000 --limit-test 1000": (
        "fast-dev-run dry-run overfit-batches smoke-test debug test-run"
    ),
    "use --data.validation N: the last N training images": "val-split validation-split val-size val-fraction",
    "use --data.scale 0.9 1.1, a range of the enlargement; there are no random crops by area": "scale ratio",
    "use --optim.clip 0, the default: leave it out": "no-clip no-clip-grad no-grad-clip",
    "use --precision fp32, the default: leave it out": "no-amp no-fp16 no-bf16 no-half",
    "use --data.flip": "hflip horizontal-flip random-flip",
    "use --data.cutout PIXELS, a square in the mean colour": "reprob remode recount random-erasing erasing cutout-size",
    "use --eval.mirror": "tta test-time-augmentation hflip-tta",
    "use --data.rotate DEGREES": "degrees rotation random-rotation rotation-range",
    "leave it out: the data set says it; --list has the names": (
        "img-size image-size input-size num-classes nb-classes n-classes in-chans mean std in-channels"
    ),
    "use --config FILE": "config-file cfg c cfg-file yaml hparams",
    "leave it out here: train.py always trains; python -m stn evaluate RUN evaluates a finished run": (
        "do-train do-eval do-predict evaluate eval-only test-only validate test eval"
    ),
    "python -m launch sweep FILE trains many settings; --lr 0.01,0.02 trains a few": "multirun m sweep search grid",
    "python -m launch sweep FILE --on slurm submits to Slurm; sbatch slurm/train.sh is one training": (
        "slurm partition submitit cluster"
    ),
    "add it to the training loop, train.py; there is no such option": (
        "mixup cutmix mixup-alpha cutmix-alpha mixup-prob mixup-mode early-stopping patience callbacks deepspeed fsdp"
    ),
    "there is no moving average of the weights; add it to the training loop, train.py": (
        "model-ema ema use-ema model-ema-decay ema-decay model-ema-warmup model-ema-steps model-ema-force-cpu"
    ),
    "no such augmentation; there are --data.rotate, translate, scale, shear, crop, flip, cutout, or data of your own": (
        "color-jitter colour-jitter color-jitter-prob grayscale-prob gaussian-blur-prob vflip aa auto-augment "
        "randaugment ra-magnitude aug-repeats aug-splits train-crop-mode crop-pct"
    ),
    "no flag changes the layers of a network; register one of your own with --plugin MODULE": (
        "drop drop-rate dropout drop-path drop-connect drop-block bn-momentum bn-eps"
    ),
}
HINTS = {name: hint for hint, names in _HINTS.items() for name in names.split()}
"""Another program's flag, without leading hyphens -> what to type instead."""
