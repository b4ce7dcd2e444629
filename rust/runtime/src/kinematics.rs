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
