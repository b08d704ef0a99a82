"""Installation of nnood; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "nnood" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)
COMMANDS = (
    "convert",
    "plan_and_preprocess",
    "cross_validation",
    "tasks",
    "recipes",
    "train",
    "find_best_configuration",
    "predict",
    "ensemble",
    "apply_postprocessing",
    "make_benchmark",
    "evaluate",
    "report",
    "export",
    "install",
    "status",
    "demo",
)

setup(
    name="nnood",
    version=VERSION,
    description="Self-configuring anomaly localisation for medical images, trained on normal images only",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["nnood", "nnood.*", "dataset_conversion", "dataset_conversion.*"]),
    package_data={"nnood": ["py.typed", "evaluation/report/page/*"]},
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.6,!=2.9.*",
        "nnunetv2>=2.8,<2.9",
        "batchgenerators>=0.25.1",
        "batchgeneratorsv2>=0.3",
        "acvl-utils>=0.2.3,<0.3",
        "dynamic-network-architectures>=0.4.1,<0.5",
        "blosc2>=3.0",
        "connected-components-3d>=3.12",
        "numpy>=1.26",
        "scipy>=1.11",
        "scikit-image>=0.22",
        "SimpleITK>=2.3",
        "tifffile>=2023.7",
        "pillow>=10.0",
        "matplotlib>=3.8",
        "tqdm>=4.66",
        "packaging>=22.0",
    ],
    extras_require={
        "latent": ["pyod>=2.0.7"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "pytest-timeout>=2.3",
            "scikit-learn>=1.4",
            "pyod>=2.0.7",
            "playwright>=1.44",
            "ruff>=0.6",
            "mypy>=1.11",
        ],
    },
    entry_points={"console_scripts": [f"nnood_{command} = nnood.cli:{command}" for command in COMMANDS]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
