//! Compiles system call policies to classic BPF: per architecture a balanced tree over call numbers.
//!
//! Knows no policy. Loads only `seccomp_data.nr`, `.arch` and the low words of arguments (linux/seccomp.h).

use rbuild_sys::seccomp::Instruction;

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Let it run.
    Allow,
    /// Fail with this error number.
    Errno(u16),
    /// Let it run if one of the tests holds, else fail with `EPERM`.
    AllowIf(Vec<Test>),
    /// Fail with `EPERM` if all tests hold, else do the other.
    RefuseIf(Vec<Test>, Box<Self>),
    /// Ask the listener.
    Notify,
    /// Ask the listener if any of these bits of an argument is set, else let it run.
    NotifyIfAnyOf(u8, u32),
    /// Ask the listener if all tests hold, else let it run.
    NotifyIf(Vec<Test>),
    /// Do not run it, and give 0, if all tests hold; else let it run.
    SucceedIf(Vec<Test>),
}

/// A comparison of the low 32 bits of one argument (0 to 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// `arg == value`
    Equal(u8, u32),
    /// `arg < value`
    Less(u8, u32),
    /// `arg > value`
    Greater(u8, u32),
    /// `arg & mask == 0`
    NoneOf(u8, u32),
}

impl Action {
    /// Whether a call with these first arguments runs, where somebody else than the kernel judges.
    pub(crate) fn allows(&self, arguments: [u32; 3]) -> bool {
        match self {
            Self::Allow => true,
            Self::AllowIf(tests) => tests.iter().any(|test| test.holds(arguments)),
            Self::RefuseIf(tests, otherwise) => {
                !tests.iter().all(|test| test.holds(arguments)) && otherwise.allows(arguments)
            }
            // What is no plain yes or no is none.
            Self::Errno(_)
            | Self::Notify
            | Self::NotifyIfAnyOf(..)
            | Self::NotifyIf(_)
            | Self::SucceedIf(_) => false,
        }
    }
}

impl Test {
    fn holds(self, arguments: [u32; 3]) -> bool {
        let argument = |at: u8| arguments.get(usize::from(at)).copied().unwrap_or_default();
        match self {
            Self::Equal(at, value) => argument(at) == value,
            Self::Less(at, value) => argument(at) < value,
            Self::Greater(at, value) => argument(at) > value,
            Self::NoneOf(at, mask) => argument(at) & mask == 0,
        }
    }
}

/// `AUDIT_ARCH_*` (`linux/audit.h`): the architectures that calls are made of.
pub(crate) mod audit {
    #[cfg(target_arch = "x86_64")]
    pub(crate) const NATIVE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    pub(crate) const NATIVE: u32 = 0xc000_00b7;
    pub(crate) const I386: u32 = 0x4000_0003;
    #[cfg(target_arch = "aarch64")]
    pub(crate) const ARM: u32 = 0x4000_0028;
}

/// The policy for one architecture as the kernel tells them apart.
#[derive(Clone, Debug)]
pub(crate) struct Architecture {
    /// `AUDIT_ARCH_*`.
    pub(crate) audit: u32,
    /// Call number ranges by their first number, ascending, starting at 0; each lasts until the next.
    pub(crate) ranges: Vec<(u32, Action)>,
}

/// Docker's default for what no rule names.
pub(crate) const EPERM: u16 = 1;
/// What a program sees for a call the kernel does not have, so that it falls back to an older one.
pub(crate) const ENOSYS: u16 = 38;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_NOTIFY: u32 = 0x7fc0_0000;
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// The program: unknown architectures fail with `ENOSYS`.
pub(crate) fn compile(architectures: &[Architecture]) -> Vec<Instruction> {
    let mut program = vec![load(OFFSET_ARCHITECTURE)];
    for architecture in architectures {
        let mut body = vec![load(OFFSET_NUMBER)];
        body.extend(tree(&architecture.ranges));
        program.push(compare(JUMP_EQUAL, architecture.audit, 1, 0));
        program.push(jump(body.len()));
        program.extend(body);
    }
    program.push(fail(ENOSYS));
    program
}

fn tree(ranges: &[(u32, Action)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![fail(EPERM)],
        [(_, action)] => leaf(action),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let low_code = tree(low);
            // A conditional jump reaches 255 instructions; the plain one reaches everything.
            let mut code = vec![compare(JUMP_AT_LEAST, high[0].0, 0, 1), jump(low_code.len())];
            code.extend(low_code);
            code.extend(tree(high));
            code
        }
    }
}

fn leaf(action: &Action) -> Vec<Instruction> {
    match action {
        Action::Allow => vec![ret(RETURN_ALLOW)],
        Action::Errno(errno) => vec![fail(*errno)],
        Action::Notify => vec![ret(RETURN_NOTIFY)],
        Action::AllowIf(tests) => {
            let mut code: Vec<_> = tests
                .iter()
                .flat_map(|test| {
                    let [load, compare] = when(*test, 0, 1);
                    [load, compare, ret(RETURN_ALLOW)]
                })
                .collect();
            code.push(fail(EPERM));
            code
        }
        Action::RefuseIf(tests, otherwise) => {
            let mut code = Vec::new();
            for (at, test) in tests.iter().enumerate() {
                // Past the tests that follow, and the refusal.
                let past = 2 * (tests.len() - at - 1) + 1;
                code.extend(when(*test, 0, u8::try_from(past).unwrap_or(u8::MAX)));
            }
            code.push(fail(EPERM));
            code.extend(leaf(otherwise));
            code
        }
        Action::NotifyIfAnyOf(argument, mask) => {
            let [load, compare] = when(Test::NoneOf(*argument, *mask), 1, 0);
            vec![load, compare, ret(RETURN_NOTIFY), ret(RETURN_ALLOW)]
        }
        Action::NotifyIf(tests) => if_all(tests, ret(RETURN_NOTIFY)),
        Action::SucceedIf(tests) => if_all(tests, fail(0)),
    }
}

/// Ends so if all tests hold; else the call runs.
fn if_all(tests: &[Test], end: Instruction) -> Vec<Instruction> {
    let allow_unless = |test: &Test| {
        let [load, compare] = when(*test, 1, 0);
        [load, compare, ret(RETURN_ALLOW)]
    };
    let mut code: Vec<_> = tests.iter().flat_map(allow_unless).collect();
    code.push(end);
    code
}

/// Jumps over so many instructions if the test holds, and over so many if it does not.
fn when(test: Test, holds: u8, fails: u8) -> [Instruction; 2] {
    let (argument, compared) = match test {
        Test::Equal(argument, value) => (argument, compare(JUMP_EQUAL, value, holds, fails)),
        Test::Less(argument, value) => (argument, compare(JUMP_AT_LEAST, value, fails, holds)),
        Test::Greater(argument, value) => (argument, compare(JUMP_GREATER, value, holds, fails)),
        Test::NoneOf(argument, mask) => (argument, compare(JUMP_ANY_BIT, mask, fails, holds)),
    };
    [load(low_word(argument)), compared]
}

fn low_word(argument: u8) -> u32 {
    let start = OFFSET_ARGUMENTS + 8 * u32::from(argument);
    if cfg!(target_endian = "big") {
        start + 4
    } else {
        start
    }
}

const fn load(offset: u32) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        jump_true: 0,
        jump_false: 0,
        k: offset,
    }
}

const fn compare(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}

fn jump(len: usize) -> Instruction {
    // Programs end at 4096 instructions, so a length always fits.
    Instruction {
        code: JUMP,
        jump_true: 0,
        jump_false: 0,
        k: u32::try_from(len).unwrap_or(u32::MAX),
    }
}

const fn ret(k: u32) -> Instruction {
    Instruction {
        code: RETURN,
        jump_true: 0,
        jump_false: 0,
        k,
    }
}

const fn fail(errno: u16) -> Instruction {
    ret(RETURN_ERRNO | errno as u32)
}

/// What [`run`] gives for a call that the listener is asked about.
#[cfg(test)]
pub(crate) const ASKED: u16 = u16::MAX;

/// Runs a program as the kernel would, for tests of what a policy answers.
#[cfg(test)]
pub(crate) fn run(
    program: &[Instruction],
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
) -> Result<(), u16> {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(architecture.to_ne_bytes());
    data.extend([0; 8]);
    arguments.iter().for_each(|a| data.extend(a.to_ne_bytes()));
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { step.jump_true } else { step.jump_false });
        match step.code {
            LOAD_WORD => {
                let word = &data[step.k as usize..step.k as usize + 4];
                accumulator = u32::from_ne_bytes(word.try_into().unwrap());
            }
            JUMP => at += step.k as usize,
            JUMP_EQUAL => at += jump(accumulator == step.k),
            JUMP_GREATER => at += jump(accumulator > step.k),
            JUMP_AT_LEAST => at += jump(accumulator >= step.k),
            JUMP_ANY_BIT => at += jump(accumulator & step.k != 0),
            RETURN if step.k == RETURN_ALLOW => return Ok(()),
            RETURN if step.k == RETURN_NOTIFY => return Err(ASKED),
            RETURN => return Err((step.k & 0xffff) as u16),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}
