"""Stand-ins for the CUDA libraries that a wheel of PyTorch asks for: `cuda_stubs.py TORCH_LIB_FOLDER OUT_FOLDER`.

Each has the names that PyTorch looks for, and every function answers "no device" (100). With OUT_FOLDER in
LD_LIBRARY_PATH such a PyTorch starts and computes on a CPU; without them it does not even import. Needs gcc and nm.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

_NO_DEVICE = "mov $100,%eax\nret\n"
_TEXT = "lea message(%rip),%rax\nret\n"
_OTHERWISE = {
    "cudaGetErrorString": _TEXT,
    "cudaGetErrorName": _TEXT,
    "cudaGetLastError": "xor %eax,%eax\nret\n",
    "cudaPeekAtLastError": "xor %eax,%eax\nret\n",
}
_CUDA = re.compile(r"lib(cu|nv|nccl)")


def wanted(folder: Path) -> dict[str, dict[str, set[str]]]:
    """Return what the libraries in a folder need of CUDA's: library -> version of its names, or "" -> names."""
    libraries = sorted(folder.glob("*.so*"))
    found: dict[str, dict[str, set[str]]] = {}
    library_of: dict[str, str] = {}
    names: set[str] = set()
    defined: set[str] = set()
    for path in libraries:
        for soname in re.findall(r"NEEDED.*\[(.*)\]", _output("readelf", "-d", path)):
            if _CUDA.match(soname) and not (folder / soname).exists():
                found.setdefault(soname, {})
        for soname, versions in re.findall(r"File: (\S+).*\n((?:.*Name: .*\n)+)", _output("readelf", "-VW", path)):
            library_of |= dict.fromkeys(re.findall(r"Name: (\S+)", versions), soname)
        for line in _output("nm", "-D", path).splitlines():
            kind, name = line.split()[-2:]
            (names if kind == "U" else defined).add(name)
    defined = {name.partition("@")[0] for name in defined}
    # Names without a version are looked for in every library that is loaded: any one of them will do.
    anywhere = min(found, key=lambda soname: ("nccl" not in soname, soname))
    for name, _, version in (each.replace("@@", "@").partition("@") for each in names):
        soname = library_of.get(version, anywhere)
        if name not in defined and soname in found and (version or re.match(r"_*(cu|nccl|nv)", name)):
            found[soname].setdefault(version, set()).add(name)
    return found


def write(soname: str, by_version: dict[str, set[str]], out: Path) -> None:
    """Write one library."""
    names = sorted(set().union(*by_version.values()))
    code = "".join(
        f".globl {name}\n.type {name},@function\n{name}:\nendbr64\n{_OTHERWISE.get(name, _NO_DEVICE)}" for name in names
    )
    script = "".join(
        f"{version} {{ global: {'; '.join(sorted(of_version))}; }};\n"
        for version, of_version in by_version.items()
        if version
    )
    with tempfile.TemporaryDirectory() as name:
        assembly, versions = Path(name, "stub.s"), Path(name, "versions")
        end = 'message: .asciz "there are no CUDA libraries here"\n.section .note.GNU-stack,"",@progbits\n'
        assembly.write_text(f".text\n{code}{end}")
        versions.write_text(script)
        command = ["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{soname}", "-o", out / soname, assembly]
        subprocess.run([*command, *([f"-Wl,--version-script={versions}"] if script else [])], check=True)


def _output(*command: object) -> str:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    out_folder = Path(sys.argv[2])
    out_folder.mkdir(parents=True, exist_ok=True)
    for library, names_by_version in wanted(Path(sys.argv[1])).items():
        write(library, names_by_version, out_folder)
