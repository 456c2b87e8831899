/* One curve of the elliptic curve method, for any kind of residue: a template.
 *
 * H. W. Lenstra, Factoring integers with elliptic curves, Ann. Math. 126, 1987, on Montgomery's
 * curves b y^2 = x^3 + a x^2 + x (Math. Comp. 48, 1987) without y: a point is X : Z.  Before
 * including this file define
 *
 *   ECM(name)            the names of this kind of residue
 *   ECM_LIMBS            words of storage of an element, uint64_t[ECM_LIMBS]
 *   EcmModulus           what the operations need beside their operands
 *   ECM_MUL(r, a, b, m)  ECM_ADD(r, a, b, m)  ECM_SUB(r, a, b, m)  ECM_COPY(r, a, m)
 *
 * Results may overwrite operands.  Residues are in whatever form the operations share.
 */

typedef uint64_t ECM(Element)[ECM_LIMBS];
typedef struct {
  ECM(Element) x, z;
} ECM(Point);

/* r = 2 p; s = (a + 2) / 4 */
static inline void ECM(twice)(ECM(Point) *r, const ECM(Point) *p, const uint64_t *s,
                              const EcmModulus *m) {
  ECM(Element) t, u, v;
  ECM_ADD(t, p->x, p->z, m);
  ECM_SUB(u, p->x, p->z, m);
  ECM_MUL(t, t, t, m);
  ECM_MUL(u, u, u, m);
  ECM_SUB(v, t, u, m);
  ECM_MUL(r->x, t, u, m);
  ECM_MUL(t, v, s, m);
  ECM_ADD(t, t, u, m);
  ECM_MUL(r->z, t, v, m);
}

/* r = p + q where d = p - q */
static inline void ECM(add)(ECM(Point) *r, const ECM(Point) *p, const ECM(Point) *q,
                            const ECM(Point) *d, const EcmModulus *m) {
  ECM(Element) t, u, v, w;
  ECM_SUB(t, p->x, p->z, m);
  ECM_ADD(u, q->x, q->z, m);
  ECM_ADD(v, p->x, p->z, m);
  ECM_SUB(w, q->x, q->z, m);
  ECM_MUL(t, t, u, m);
  ECM_MUL(v, v, w, m);
  ECM_ADD(u, t, v, m);
  ECM_SUB(w, t, v, m);
  ECM_MUL(u, u, u, m);
  ECM_MUL(w, w, w, m);
  ECM_MUL(t, u, d->z, m); /* r may be d */
  ECM_MUL(r->z, w, d->x, m);
  ECM_COPY(r->x, t, m);
}

/* r = k p for k > 0; r apart from p */
static inline void ECM(multiply)(ECM(Point) *r, const ECM(Point) *p, uint64_t k,
                                 const uint64_t *s, const EcmModulus *m) {
  ECM(Point) low = *p, high;
  ECM(twice)(&high, p, s, m);
  for (int bit = 62 - __builtin_clzll(k); bit >= 0; bit--) {
    if (k >> bit & 1) {
      ECM(add)(&low, &high, &low, p, m);
      ECM(twice)(&high, &high, s, m);
    } else {
      ECM(add)(&high, &high, &low, p, m);
      ECM(twice)(&low, &low, s, m);
    }
  }
  *r = low;
}

/* p = product of factors[count] times p: the first stage, or a part of it. */
static void ECM(first_stage)(ECM(Point) *p, const uint64_t *s, const uint64_t *factors,
                             int64_t count, const EcmModulus *m) {
  ECM(Point) r;
  for (int64_t i = 0; i < count; i++) {
    ECM(multiply)(&r, p, factors[i], s, m);
    *p = r;
  }
}

/* The second stage finds q in (B1, B2] as a multiple of D less or more a unit j of D:
 * acc = product of X(g D p) Z(j p) - X(j p) Z(g D p), which is a multiple of the hidden prime when
 * (g D - j) p or (g D + j) p is the zero of the curve modulo it.  D is a multiple of 6. */
typedef struct {
  ECM(Point) giant, step, before; /* g D p, D p, (g - 1) D p */
  ECM(Element) acc;
  ECM(Point) *babies; /* j p for the units j < D / 2 in ascending order */
  ECM(Element) *products; /* X Z of the babies */
  int units;
} ECM(Second);

/* Fill the tables and stand at giant step g >= 2; points has room for D / 2 points. */
static void ECM(second_begin)(ECM(Second) *t, const ECM(Point) *p, const uint64_t *s, int D,
                              uint64_t g, const uint8_t *is_unit, ECM(Point) *points,
                              const EcmModulus *m) {
  /* The residues 1 and 5 modulo 6 step by 6: j + 6 from j, 6 and j - 6 = 6 - j. */
  ECM(Point) two, three, six;
  t->units = 0;
  ECM(twice)(&two, p, s, m);
  ECM(add)(&three, &two, p, p, m);
  ECM(twice)(&six, &three, s, m);
  points[1] = *p;
  ECM(add)(&points[5], &three, &two, p, m);
  for (int j = 7; j < D / 2; j++)
    if (j % 6 == 1 || j % 6 == 5)
      ECM(add)(&points[j], &points[j - 6], &six, j == 7 ? &points[5] : j == 11 ? &points[1] : &points[j - 12], m);
  for (int j = 1; j < D / 2; j++)
    if (is_unit[j]) {
      t->babies[t->units] = points[j];
      ECM_MUL(t->products[t->units], points[j].x, points[j].z, m);
      t->units++;
    }
  ECM(multiply)(&t->step, p, (uint64_t)D, s, m);
  ECM(multiply)(&t->giant, &t->step, g, s, m);
  ECM(multiply)(&t->before, &t->step, g - 1, s, m);
}

/* One giant step: multiply the units for which wanted[i] is set into acc, then go on to g + 1. */
static void ECM(second_step)(ECM(Second) *t, const uint8_t *wanted, const EcmModulus *m) {
  ECM(Element) product, u, v;
  ECM_MUL(product, t->giant.x, t->giant.z, m);
  for (int i = 0; i < t->units; i++) {
    if (wanted && !wanted[i])
      continue;
    ECM_SUB(u, t->giant.x, t->babies[i].x, m);
    ECM_ADD(v, t->giant.z, t->babies[i].z, m);
    ECM_MUL(u, u, v, m);
    ECM_SUB(u, u, product, m);
    ECM_ADD(u, u, t->products[i], m);
    ECM_MUL(t->acc, t->acc, u, m);
  }
  ECM(Point) next;
  ECM(add)(&next, &t->giant, &t->step, &t->before, m);
  t->before = t->giant;
  t->giant = next;
}
