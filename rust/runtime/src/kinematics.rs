//! Where the named frames are: forward kinematics from joint positions, in f64.
//!
//! A frame's chain comes from the bundle's manifest: fixed transforms with one joint after each, outwards. Frames that
//! hang on a floating base start at its pose, all others at the world.

use cadenza_policy::manifest::{Frame, JointKind};

use crate::robot::{JointMap, Robot, RobotError};
use crate::state::{Base, Joints};

/// All frames of a bundle, evaluated together.
#[derive(Clone, Debug)]
pub struct Kinematics {
    names: Vec<String>,
    floating: Vec<bool>,
    links: Vec<Link>,
    /// End of each frame's links.
    ends: Vec<usize>,
    poses: Vec<([f64; 3], [f64; 4])>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    pos: [f64; 3],
    quat: [f64; 4],
    motion: Motion,
}

#[derive(Clone, Copy, Debug)]
enum Motion {
    Fixed,
    Hinge { joint: usize, axis: [f64; 3], zero: f64 },
    Slide { joint: usize, axis: [f64; 3], zero: f64 },
}

impl Kinematics {
    /// Finds each chain's joints in the robot.
    ///
    /// # Errors
    /// [`RobotError::MissingJoint`]; [`RobotError::BadLink`] when an axis or a quaternion is not of length 1 (to 1e-6).
    pub fn new(frames: &[Frame], robot: &Robot) -> Result<Self, RobotError> {
        let mut all = Self {
            names: frames.iter().map(|f| f.name.clone()).collect(),
            floating: frames.iter().map(|f| f.floating).collect(),
            links: Vec::new(),
            ends: Vec::new(),
            poses: vec![([0.0; 3], [1.0, 0.0, 0.0, 0.0]); frames.len()],
        };
        for frame in frames {
            for (i, link) in frame.chain.iter().enumerate() {
                let unit = |what, length: f64| {
                    let fine = (length - 1.0).abs() <= 1e-6;
                    let error = RobotError::BadLink { frame: frame.name.clone(), link: i, what, length };
                    if fine { Ok(length) } else { Err(error) }
                };
                let length = unit("quat", norm(&link.quat))?;
                let motion = match &link.joint {
                    None => Motion::Fixed,
                    Some(name) => {
                        let joint = JointMap::new(robot, &[name])?.places()[0];
                        let length = unit("axis", norm(&link.axis))?;
                        let (axis, zero) = (link.axis.map(|x| x / length), link.zero);
                        match link.kind {
                            JointKind::Hinge => Motion::Hinge { joint, axis, zero },
                            JointKind::Slide => Motion::Slide { joint, axis, zero },
                        }
                    }
                };
                all.links.push(Link { pos: link.pos, quat: link.quat.map(|x| x / length), motion });
            }
            all.ends.push(all.links.len());
        }
        Ok(all)
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Index of a frame.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }

    /// Names of the frames, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Evaluates every frame at the joint positions `q` (robot order). `quat` is the orientation of the base, body →
    /// world. Frames on a base that the device does not report become NaN. Allocates nothing.
    pub fn update(&mut self, q: &Joints, base: &Base, quat: &[f64; 4]) {
        let mut start = 0;
        for ((pose, &floating), &end) in self.poses.iter_mut().zip(&self.floating).zip(&self.ends) {
            let (mut p, mut r) = match (floating, base.valid) {
                (false, _) => ([0.0; 3], [1.0, 0.0, 0.0, 0.0]),
                (true, true) => (base.pos, *quat),
                (true, false) => ([f64::NAN; 3], [f64::NAN; 4]),
            };
            for link in &self.links[start..end] {
                p = add(p, rotate(&r, &link.pos));
                r = multiply(&r, &link.quat);
                match link.motion {
                    Motion::Fixed => {}
                    Motion::Hinge { joint, axis, zero } => {
                        let (s, c) = (0.5 * (q[joint] - zero)).sin_cos();
                        r = multiply(&r, &[c, s * axis[0], s * axis[1], s * axis[2]]);
                    }
                    Motion::Slide { joint, axis, zero } => {
                        p = add(p, rotate(&r, &axis.map(|x| x * (q[joint] - zero))));
                    }
                }
            }
            let length = norm(&r);
            *pose = (p, r.map(|x| x / length));
            start = end;
        }
    }

    /// Position (m, world) and orientation (frame → world) of frame `i` at the last update; the identity for a frame
    /// that does not exist.
    pub fn pose(&self, i: usize) -> ([f64; 3], [f64; 4]) {
        self.poses.get(i).copied().unwrap_or(([0.0; 3], [1.0, 0.0, 0.0, 0.0]))
    }
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn add(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn multiply(a: &[f64; 4], b: &[f64; 4]) -> [f64; 4] {
    [
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    ]
}

/// `v` turned by the unit quaternion `q`.
pub(crate) fn rotate(q: &[f64; 4], v: &[f64; 3]) -> [f64; 3] {
    let [w, x, y, z] = *q;
    // t = 2 · (q_vector × v);  v' = v + w·t + q_vector × t
    let t = [2.0 * (y * v[2] - z * v[1]), 2.0 * (z * v[0] - x * v[2]), 2.0 * (x * v[1] - y * v[0])];
    [
        v[0] + w * t[0] + (y * t[2] - z * t[1]),
        v[1] + w * t[1] + (z * t[0] - x * t[2]),
        v[2] + w * t[2] + (x * t[1] - y * t[0]),
    ]
}

/// `v` turned by the inverse of the unit quaternion `q`: from the world into the body's axes.
pub(crate) fn rotate_back(q: &[f64; 4], v: &[f64; 3]) -> [f64; 3] {
    rotate(&[q[0], -q[1], -q[2], -q[3]], v)
}

#[cfg(test)]
mod tests {
    use cadenza_policy::manifest::Link;
    use proptest::prelude::*;

    use super::*;
    use crate::robot::tests::two_joints;
    use crate::state::MAX_JOINTS;

    const AT_ORIGIN: Base = Base { pos: [0.0; 3], vel: [0.0; 3], valid: false };
    const UNTURNED: [f64; 4] = [1.0, 0.0, 0.0, 0.0];

    fn link(pos: [f64; 3], joint: Option<&str>, axis: [f64; 3]) -> Link {
        Link { pos, quat: UNTURNED, joint: joint.map(Into::into), axis, kind: JointKind::Hinge, zero: 0.0 }
    }

    fn frame(floating: bool, chain: Vec<Link>) -> Frame {
        Frame { name: "tool".into(), floating, chain }
    }

    fn joints(shoulder: f64, wrist: f64) -> Joints {
        let mut q = [0.0; MAX_JOINTS];
        (q[0], q[1]) = (shoulder, wrist);
        q
    }

    /// Upright arm: shoulder at 0.12 m, links of 0.3 and 0.25 m, both joints pitch forward.
    fn arm() -> Vec<Link> {
        vec![
            link([0.0, 0.0, 0.12], Some("shoulder"), [0.0, 1.0, 0.0]),
            link([0.0, 0.0, 0.3], Some("wrist"), [0.0, 1.0, 0.0]),
            link([0.0, 0.0, 0.25], None, [0.0, 0.0, 1.0]),
        ]
    }

    fn assert_near(a: &[f64], b: &[f64]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    }

    #[test]
    fn a_planar_arm_stands_where_trigonometry_says() {
        let mut k = Kinematics::new(&[frame(false, arm())], &two_joints()).unwrap();
        let half = std::f64::consts::FRAC_PI_2;
        for (q, at) in [
            (joints(0.0, 0.0), [0.0, 0.0, 0.67]),
            (joints(half, 0.0), [0.55, 0.0, 0.12]),
            (joints(half, -half), [0.3, 0.0, 0.37]),
            (
                joints(0.5, 0.7),
                [
                    0.3 * 0.5f64.sin() + 0.25 * 1.2f64.sin(),
                    0.0,
                    0.12 + 0.3 * 0.5f64.cos() + 0.25 * 1.2f64.cos(),
                ],
            ),
        ] {
            k.update(&q, &AT_ORIGIN, &UNTURNED);
            assert_near(&k.pose(0).0, &at);
        }
        assert_near(&k.pose(0).1, &[0.6f64.cos(), 0.0, 0.6f64.sin(), 0.0]);
    }

    #[test]
    fn zero_shifts_and_slides_slide() {
        let mut chain = arm();
        chain[0].zero = 0.4;
        chain[1].kind = JointKind::Slide;
        chain[1].zero = 0.1;
        chain[1].axis = [0.0, 0.0, 1.0];
        let mut k = Kinematics::new(&[frame(false, chain)], &two_joints()).unwrap();
        k.update(&joints(0.4, 0.1), &AT_ORIGIN, &UNTURNED);
        assert_near(&k.pose(0).0, &[0.0, 0.0, 0.67]);
        k.update(&joints(0.4 + std::f64::consts::FRAC_PI_2, 0.3), &AT_ORIGIN, &UNTURNED);
        assert_near(&k.pose(0).0, &[0.75, 0.0, 0.12]);
    }

    #[test]
    fn a_floating_frame_hangs_on_the_base() {
        let mut k = Kinematics::new(&[frame(true, arm()), frame(false, arm())], &two_joints()).unwrap();
        let base = Base { pos: [1.0, 2.0, 3.0], vel: [0.0; 3], valid: true };
        // A quarter turn about z: what was forward is left.
        let s = std::f64::consts::FRAC_1_SQRT_2;
        k.update(&joints(std::f64::consts::FRAC_PI_2, 0.0), &base, &[s, 0.0, 0.0, s]);
        assert_near(&k.pose(0).0, &[1.0, 2.55, 3.12]);
        assert_near(&k.pose(1).0, &[0.55, 0.0, 0.12]);
        k.update(&joints(0.0, 0.0), &AT_ORIGIN, &UNTURNED);
        assert!(k.pose(0).0[0].is_nan() && k.pose(1).0[0] == 0.0);
    }

    #[test]
    fn broken_chains_are_refused() {
        let refused = |l: Link| Kinematics::new(&[frame(false, vec![l])], &two_joints()).unwrap_err();
        let error = refused(link([0.0; 3], Some("knee"), [0.0, 0.0, 1.0]));
        assert!(matches!(error, RobotError::MissingJoint { name, .. } if name == "knee"));
        let error = refused(link([0.0; 3], Some("wrist"), [0.0, 0.0, 2.0]));
        assert_eq!(error, RobotError::BadLink { frame: "tool".into(), link: 0, what: "axis", length: 2.0 });
        let error = refused(Link { quat: [0.0; 4], ..link([0.0; 3], None, [0.0; 3]) });
        assert!(matches!(error, RobotError::BadLink { what: "quat", .. }));
        assert!(matches!(
            refused(Link { quat: [f64::NAN; 4], ..link([0.0; 3], None, [0.0; 3]) }),
            RobotError::BadLink { .. }
        ));
    }

    type Matrix = [[f64; 3]; 3];

    fn product(a: &Matrix, b: &Matrix) -> Matrix {
        std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
    }

    fn apply(a: &Matrix, v: &[f64; 3]) -> [f64; 3] {
        std::array::from_fn(|i| (0..3).map(|k| a[i][k] * v[k]).sum())
    }

    /// Rodrigues' formula: the rotation by `angle` about `axis`, without quaternions.
    fn turn(axis: &[f64; 3], angle: f64) -> Matrix {
        let (s, c) = angle.sin_cos();
        let [x, y, z] = *axis;
        let cross = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]];
        std::array::from_fn(|i| {
            std::array::from_fn(|j| f64::from(i == j) * c + s * cross[i][j] + (1.0 - c) * axis[i] * axis[j])
        })
    }

    fn unit() -> impl Strategy<Value = [f64; 3]> {
        (-1.0..1.0f64, 0.0..std::f64::consts::TAU).prop_map(|(z, a)| {
            let r = (1.0 - z * z).sqrt();
            [r * a.cos(), r * a.sin(), z]
        })
    }

    fn links() -> impl Strategy<Value = Vec<(([f64; 3], f64), Link)>> {
        let one = ([-0.5..0.5f64, -0.5..0.5, -0.5..0.5], unit(), -3.0..3.0f64, 0u8..4, unit(), -1.0..1.0f64);
        let one = one.prop_map(|(pos, about, angle, motion, axis, zero)| {
            let (s, c) = (0.5 * angle).sin_cos();
            let quat = [c, s * about[0], s * about[1], s * about[2]];
            let joint = [None, Some("shoulder"), Some("wrist"), Some("wrist")][motion as usize];
            let kind = if motion == 3 { JointKind::Slide } else { JointKind::Hinge };
            ((about, angle), Link { quat, kind, zero, ..link(pos, joint, axis) })
        });
        prop::collection::vec(one, 0..9)
    }

    proptest! {
        /// Quaternion chains agree with products of rotation matrices, and stay rotations.
        #[test]
        fn chains_agree_with_matrices(links in links(), shoulder in -9.0..9.0f64, wrist in -9.0..9.0f64) {
            let chain = links.iter().map(|(_, l)| l.clone()).collect();
            let mut k = Kinematics::new(&[frame(false, chain)], &two_joints()).unwrap();
            k.update(&joints(shoulder, wrist), &AT_ORIGIN, &UNTURNED);
            let (p, r) = k.pose(0);

            let mut at = [0.0; 3];
            let mut rotation = turn(&[0.0, 0.0, 1.0], 0.0);
            for ((about, angle), link) in &links {
                at = add(at, apply(&rotation, &link.pos));
                rotation = product(&rotation, &turn(about, *angle));
                let Some(joint) = &link.joint else { continue };
                let q = if joint == "wrist" { wrist } else { shoulder } - link.zero;
                match link.kind {
                    JointKind::Hinge => rotation = product(&rotation, &turn(&link.axis, q)),
                    JointKind::Slide => at = add(at, apply(&rotation, &link.axis.map(|x| x * q))),
                }
            }
            prop_assert!((norm(&r) - 1.0).abs() < 1e-15);
            prop_assert!((0..3).all(|i| (p[i] - at[i]).abs() < 1e-12), "{:?} {:?}", p, at);
            for (i, e) in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].iter().enumerate() {
                let column = rotate(&r, e);
                prop_assert!((0..3).all(|j| (column[j] - rotation[j][i]).abs() < 1e-12));
                prop_assert!((norm(&column) - 1.0).abs() < 1e-14);
                let back = rotate_back(&r, &column);
                prop_assert!((0..3).all(|j| (back[j] - e[j]).abs() < 1e-14));
            }
        }
    }
}
