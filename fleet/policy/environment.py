"""Environment: variables that no policy can grant, because programs run or load what they name.

From sudo (plugins/sudoers/env.c: the variables that it takes away), glibc (sysdeps/generic/unsecvars.h: those that it
ignores in privileged programs), systemd (systemd.exec(5)), and the manuals of the programs that people list most. Such
a list is never complete: it is the second net. The first is that a variable is granted by name and pattern, or not
given. Compared without regard to case, because some programs (npm, curl) read either.
"""

import re

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def _words(table: str) -> tuple[str, ...]:
    return tuple(word for line in table.splitlines() if not line.startswith("#") for word in line.split())


_NAMES = frozenset(
    _words("""
# where programs, libraries, manuals, home directories and temporary files are looked for
PATH LIBPATH SHLIB_PATH CDPATH FPATH HOME SHELL TMPDIR TMP TEMP TMPPREFIX ZDOTDIR CLASSPATH MANPATH INFOPATH
# what shells read and run
ENV IFS SHELLOPTS BASHOPTS PS4 PROMPT_COMMAND GLOBIGNORE NULLCMD READNULLCMD INPUTRC HISTFILE
# character sets, locales, messages and terminals are loaded from files; names are resolved by others
GCONV_PATH LOCPATH NLSPATH PATH_LOCALE GETCONF_DIR GLIBC_TUNABLES TZDIR TEXTDOMAINDIR OUTPUT_CHARSET
HOSTALIASES LOCALDOMAIN RES_OPTIONS RESOLV_HOST_CONF NIS_PATH TERMINFO TERMINFO_DIRS TERMCAP TERMPATH
# interpreters, compilers, make
AWKPATH AWKLIBPATH PHPRC PHP_INI_SCAN_DIR GCC_EXEC_PREFIX COMPILER_PATH CC CXX LD AR GOFLAGS GOROOT GOPATH
RUSTC RUSTC_WRAPPER RUSTFLAGS MAKE MAKEFLAGS GNUMAKEFLAGS MFLAGS MAKEFILES MAKEFILE_LIST
# options in the environment, as good as arguments that were never checked; files of settings that name programs
GZIP BZIP BZIP2 ZIPOPT UNZIP UNZIPOPT XZ_OPT XZ_DEFAULTS WGETRC CURL_HOME NETRC EXINIT VIMINIT MYVIMRC SCREENRC
MAGIC NMAPDIR SQLITE_HISTORY APT_CONFIG KUBECONFIG GNUPGHOME PSQLRC PGSERVICEFILE PGSYSCONFDIR PGPASSFILE
RIPGREP_CONFIG_PATH MAILRC BAT_CONFIG_PATH BAT_CONFIG_DIR PARALLEL PARALLEL_HOME PARALLEL_SHELL PARALLEL_SSH
SSLKEYLOGFILE SASL_PATH FCEDIT DISPLAY XAUTHORITY NOTIFY_SOCKET WATCHDOG_PID VAR_ACE USR_ACE DLC_ACE AUTHSTATE
""")
)
_PREFIXES = _words("""
# the dynamic linker, also of other systems, and what is loaded beside it
LD_ LDR_ DYLD_ _RLD MALLOC_ NSS_ FAKEROOT VALGRIND_
# shells and interpreters
BASH_ KSH_ PYTHON PERL RUBY GEM_ BUNDLE_ NODE_ NPM_ DENO_ LUA_ GUILE_ PHP_ JAVA_ _JAVA_ JDK_ DOTNET_ CORECLR_ COMPLUS_
MONO_ ERL_ JULIA_ R_ TCL GAWK_ CARGO_ PIP_ UV_ POETRY_ VIRTUAL_ENV CONDA_
# programs whose settings name others: pagers, remote shells, credential helpers, plugins
GIT_ SSH_ SVN_ HG CVS RSYNC_ DOCKER_ COMPOSE_ BUILDKIT_ BUILDX_ CONTAINERS_ PODMAN_ LESS MANOPT MANLESS MANROFF GROFF_
VIM NVIM EMACS TMUX GDB DEBUGINFOD_ PSQL_ MYSQL_ AWS_ GOOGLE_ AZURE_ HELM_ ANSIBLE_ TF_ TAR_ GREP_ DPKG_ DEBCONF_ GPG_
MAGICK_ CCACHE_
# loaders of modules, engines and certificates
OPENSSL_ SSL_ KRB5 LDAP GTK_ GIO_ GST_ QT_ LIBGL_ LIBVA_ VK_ OCL_ ODBC
# the session's buses and directories of settings, systemd's protocols, Fleet's and Celery's settings
XDG_ DBUS_ SYSTEMD_ LISTEN_ CREDENTIALS_ SUDO_ FLEET_ CELERY_ KOMBU_
""")
#: SYSTEMD_PAGER, VISUAL, JDK_JAVA_OPTIONS, MAVEN_OPTS, ASAN_OPTIONS, CVS_RSH …
_ENDINGS = _words("PAGER EDITOR VISUAL BROWSER _OPTIONS _OPTS _RSH _PRELOAD _LIBRARY_PATH _COMMAND")


def grantable(name: str) -> str:
    """Check the name of a variable in a policy."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no name of a variable")
    if is_dangerous(name):
        raise ValueError(f"{name} cannot be granted: by this variable programs can be made to run or load others")
    return name


def is_dangerous(name: str) -> bool:
    """Say whether a variable can make programs run others, or load code."""
    upper = name.upper()
    return upper in _NAMES or upper.startswith(_PREFIXES) or upper.endswith(_ENDINGS)
