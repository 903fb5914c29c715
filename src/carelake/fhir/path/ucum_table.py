"""UCUM's atoms as data: code, metric or not, and value in other units.

From the tables of the UCUM specification 2.1 (Regenstrief Institute; used and shipped under its licence, see NOTICE).
Left out: typographic, legacy and rarely used customary units (apothecary and avoirdupois are in, Chinese units not).
"""

from __future__ import annotations

from fractions import Fraction

__all__ = ["ARBITRARY", "BASES", "PREFIXES", "SPECIAL", "UNITS"]

BASES = {"m": "L", "s": "T", "g": "M", "rad": "A", "K": "C", "C": "Q", "cd": "F"}
"""Base unit to the letter of its dimension."""

PREFIXES = {
    "da": Fraction(10),
    **{
        prefix: Fraction(10) ** power
        for prefix, power in {
            "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2,
            "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24,
        }.items()
    },
    **{f"{name}i": Fraction(2) ** (10 * n) for n, name in enumerate("KMGT", 1)},
}  # fmt: skip

_PI = "3.1415926535897932384626433832795028841971693993751058209749445923"

# code, "m" if it takes prefixes, value, unit
_ROWS = f"""
10* - 10 1
10^ - 10 1
[pi] - {_PI} 1
% - 0.01 1
[ppth] - 0.001 1
[ppm] - 0.000001 1
[ppb] - 0.000000001 1
[pptr] - 0.000000000001 1
mol m 602213670000000000000000 1
sr m 1 rad2
Hz m 1 s-1
N m 1 kg.m/s2
Pa m 1 N/m2
J m 1 N.m
W m 1 J/s
A m 1 C/s
V m 1 J/C
F m 1 C/V
Ohm m 1 V/A
S m 1 Ohm-1
Wb m 1 V.s
T m 1 Wb/m2
H m 1 Wb/A
lm m 1 cd.sr
lx m 1 lm/m2
Bq m 1 s-1
Gy m 1 J/kg
Sv m 1 J/kg
gon - 0.9 deg
deg - 2 [pi].rad/360
' - 1 deg/60
'' - 1 '/60
l m 1 dm3
L m 1 l
ar m 100 m2
min - 60 s
h - 60 min
d - 24 h
a_t - 365.24219 d
a_j - 365.25 d
a_g - 365.2425 d
a - 1 a_j
wk - 7 d
mo_s - 29.53059 d
mo_j - 1 a_j/12
mo_g - 1 a_g/12
mo - 1 mo_j
t m 1000 kg
bar m 100000 Pa
u m 0.00000000000000000000000166054020 g
eV m 0.000000000000000000160217733 J
AU - 149597.870691 Mm
pc m 30856780000000000 m
[c] m 299792458 m/s
[h] m 0.00000000000000000000000000000000066260755 J.s
[k] m 0.00000000000000000000001380658 J/K
[eps_0] m 0.000000000008854187817 F/m
[mu_0] m 0.00000125663706143591729538505735331180 N/A2
[e] m 0.000000000000000000160217733 C
[m_e] m 0.00000000000000000000000000091093897 g
[m_p] m 0.0000000000000000000000016726231 g
[G] m 0.0000000000667259 m3.kg-1.s-2
[g] m 9.80665 m/s2
atm - 101325 Pa
[ly] m 1 [c].a_j
gf m 1 g.[g]
[lbf_av] - 1 [lb_av].[g]
Ky m 1 cm-1
Gal m 1 cm/s2
dyn m 1 g.cm/s2
erg m 1 dyn.cm
P m 1 dyn.s/cm2
Bi m 10 A
St m 1 cm2/s
Mx m 0.00000001 Wb
G m 0.0001 T
Oe m 250 /[pi].A/m
Gb m 1 Oe.cm
sb m 1 cd/cm2
Lmb m 1 cd/cm2/[pi]
ph m 0.0001 lx
Ci m 37000000000 Bq
R m 0.000258 C/kg
RAD m 100 erg/g
REM m 1 RAD
[in_i] - 2.54 cm
[ft_i] - 12 [in_i]
[yd_i] - 3 [ft_i]
[mi_i] - 5280 [ft_i]
[fth_i] - 6 [ft_i]
[nmi_i] - 1852 m
[kn_i] - 1 [nmi_i]/h
[sin_i] - 1 [in_i]2
[sft_i] - 1 [ft_i]2
[syd_i] - 1 [yd_i]2
[cin_i] - 1 [in_i]3
[cft_i] - 1 [ft_i]3
[cyd_i] - 1 [yd_i]3
[bf_i] - 144 [in_i]3
[cr_i] - 128 [ft_i]3
[mil_i] - 0.001 [in_i]
[cml_i] - 1 [pi]/4.[mil_i]2
[hd_i] - 4 [in_i]
[ft_us] - 1200 m/3937
[yd_us] - 3 [ft_us]
[in_us] - 1 [ft_us]/12
[rd_us] - 16.5 [ft_us]
[mi_us] - 5280 [ft_us]
[acr_us] - 160 [rd_us]2
[smi_us] - 1 [mi_us]2
[in_br] - 2.539998 cm
[ft_br] - 12 [in_br]
[gal_us] - 231 [in_i]3
[bbl_us] - 42 [gal_us]
[qt_us] - 1 [gal_us]/4
[pt_us] - 1 [qt_us]/2
[gil_us] - 1 [pt_us]/4
[foz_us] - 1 [gil_us]/4
[fdr_us] - 1 [foz_us]/8
[min_us] - 1 [fdr_us]/60
[crd_us] - 128 [ft_i]3
[bu_us] - 2150.42 [in_i]3
[gal_wi] - 1 [bu_us]/8
[pk_us] - 1 [bu_us]/4
[dqt_us] - 1 [pk_us]/8
[dpt_us] - 1 [dqt_us]/2
[tbs_us] - 1 [foz_us]/2
[tsp_us] - 1 [tbs_us]/3
[cup_us] - 16 [tbs_us]
[foz_m] - 30 mL
[cup_m] - 240 mL
[tsp_m] - 5 mL
[tbs_m] - 15 mL
[gal_br] - 4.54609 l
[qt_br] - 1 [gal_br]/4
[pt_br] - 1 [qt_br]/2
[gil_br] - 1 [pt_br]/4
[foz_br] - 1 [gil_br]/5
[fdr_br] - 1 [foz_br]/8
[min_br] - 1 [fdr_br]/60
[gr] - 64.79891 mg
[lb_av] - 7000 [gr]
[oz_av] - 1 [lb_av]/16
[dr_av] - 1 [oz_av]/16
[scwt_av] - 100 [lb_av]
[lcwt_av] - 112 [lb_av]
[ston_av] - 20 [scwt_av]
[lton_av] - 20 [lcwt_av]
[stone_av] - 14 [lb_av]
[pwt_tr] - 24 [gr]
[oz_tr] - 20 [pwt_tr]
[lb_tr] - 12 [oz_tr]
[sc_ap] - 20 [gr]
[dr_ap] - 3 [sc_ap]
[oz_ap] - 8 [dr_ap]
[lb_ap] - 12 [oz_ap]
[oz_m] - 28 g
[pnt] - 0.013837 [in_i]
[degR] - 5 K/9
cal_[15] m 4.18580 J
cal_[20] m 4.18190 J
cal_m m 4.19002 J
cal_IT m 4.1868 J
cal_th m 4.184 J
cal m 1 cal_th
[Cal] - 1 kcal_th
[Btu_IT] - 1.05505585262 kJ
[Btu_th] - 1.054350 kJ
[Btu] - 1 [Btu_th]
[HP] - 550 [ft_i].[lbf_av]/s
tex m 1 g/km
[den] - 1 g/9/km
m[H2O] m 9.80665 kPa
m[Hg] m 133.3220 kPa
[in_i'H2O] - 1 m[H2O].[in_i]/m
[in_i'Hg] - 1 m[Hg].[in_i]/m
[psi] - 1 [lbf_av]/[in_i]2
[PRU] - 1 mm[Hg].s/ml
[wood'U] - 1 mm[Hg].min/L
[diop] - 1 /m
[mesh_i] - 1 /[in_i]
[Ch] - 1 mm/3
[drp] - 1 ml/20
[HPF] - 1 1
[LPF] - 100 1
kat m 1 mol/s
U m 1 umol/min
eq m 1 mol
osm m 1 mol
g% m 1 g/dl
[S] - 0.0000000000001 s
[MET] - 3.5 mL/min/kg
[car_m] - 0.2 g
[car_Au] - 1 /24
st m 1 m3
Ao - 0.1 nm
b - 100 fm2
att - 1 kgf/cm2
mho m 1 S
circ - 2 [pi].rad
sph - 4 [pi].sr
bit m 1 1
By m 8 bit
Bd m 1 /s
[IU] m 1 [iU]
"""


def _rows() -> dict[str, tuple[bool, str, str]]:
    split = [row.split(" ", 3) for row in _ROWS.strip().splitlines()]
    return {code: (metric == "m", value, unit) for code, metric, value, unit in split}


UNITS = _rows()
"""Code to (takes prefixes, value, in this unit)."""

_ARBITRARY_WORDS = """
[iU] [arb'U] [USP'U] [GPL'U] [MPL'U] [APL'U] [beth'U] [anti'Xa'U] [todd'U] [dye'U] [smgy'U] [bdsk'U] [ka'U] [knk'U]
[mclg'U] [tb'U] [CCID_50] [TCID_50] [EID_50] [PFU] [FFU] [CFU] [IR] [BAU] [AU] [Amb'a'1'U] [PNU] [Lf] [D'ag'U] [FEU]
[ELU] [EU] [hnsf'U] [SPL] [hp'_X] [hp_X] [hp_C] [hp_M] [hp_Q] [kp_X] [kp_C] [kp_M] [kp_Q]
"""
ARBITRARY = frozenset(_ARBITRARY_WORDS.split())
"""Units of a measuring procedure: each is a dimension of its own."""

_SPECIAL_WORDS = """
Cel [degF] [degRe] [pH] Np B B[SPL] B[V] B[mV] B[uV] B[10.nV] B[W] B[kW] bit_s [p'diop] %[slope] [hp'_C] [hp'_M]
[hp'_Q] [m/s2/Hz^0.5]
"""
SPECIAL = frozenset(_SPECIAL_WORDS.split())
"""Units whose scale is not a ratio."""
