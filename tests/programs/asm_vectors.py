"""Random instructions of SSE, AVX, x87 and MMX, as templates with letters for operands.

X and Y are vector registers, N an MMX register, F a register of the x87 stack, T its top, R4 a general register, M8
memory of 8 bytes; XM, YM, NM, RM4 one or the other. I and J are immediate operands, K and W control words for SSE and
x87.
"""
from asm_operands import AF, ALL, ARENA, CF, OF, PF, PREFIX, SF, ZF, Operands

PACKED = """addps addpd subps subpd mulps mulpd divps divpd minps minpd maxps maxpd andps andnps orps xorps xorpd
unpcklps unpckhps unpcklpd unpckhpd paddb paddw paddd paddq psubb psubw psubd psubq paddsb paddusw psubsw psubusb
pmullw pmulhw pmulhuw pmuludq pmulld pmuldq pmaddwd pmaddubsw psadbw pavgb pavgw pminub pmaxub pminsw pmaxsw pminsd
pmaxud pand pandn por pxor pcmpeqb pcmpeqw pcmpeqd pcmpeqq pcmpgtb pcmpgtw pcmpgtd pcmpgtq packsswb packuswb
packssdw packusdw punpcklbw punpckhwd punpckldq punpcklqdq punpckhqdq pshufb phaddw phaddd phsubd psignb psignw
psignd pmulhrsw haddps hsubpd addsubps addsubpd aesenc aesdeclast""".split()
MMX = """paddb paddw paddd paddq psubb psubw psubd paddsb paddusw psubsw pmullw pmulhw pmuludq pmaddwd psadbw pavgb
pminub pmaxsw pand pandn por pxor pcmpeqb pcmpeqw pcmpgtd packsswb packuswb punpckhwd pshufb psllw psrlq psrad
phaddw psignw""".split()
MMX_MOVES = """movq N,NM|movq M8,N|movd N,RM4|movd R4,N|emms|movq2dq X,N|movdq2q N,X|cvtpi2ps X,N|pshufw N,N,I|
pinsrw N,R4,I|pmovmskb R4,N|movntq M8,N|emms""".replace("\n", "").split("|")
SCALAR = "add sub mul div min max sqrt".split()
SCALARS, WIDE_SCALARS = ["ss X,XM4", "sd X,XM8"], ["ss X,X,XM4", "sd X,X,XM8"]
VECTOR = """movaps X,XM|movups X,M16|movdqa M16,X|movdqu M16,X|movaps M16,X|movsd X,M8|movss M4,X|movq X,M8|
movd X,RM4|movd RM4,X|movhps X,M8|movlps M8,X|movhlps X,X|movntdq M16,X|movmskps R4,X|pmovmskb R4,X|pshufd X,XM,I|
pshuflw X,XM,I|shufps X,XM,I|shufpd X,XM,I|palignr X,XM,I|pblendw X,XM,I|insertps X,X,I|pinsrw X,RM4w,I|
pinsrd X,RM4,I|pextrw R4,X,I|pextrd RM4,X,I|psllw X,I|psrad X,I|psrlq X,X|pslldq X,I|psrldq X,I|cvtsi2sd X,RM4|
cvtsi2ss X,RM4|cvttsd2si R4,X|cvtss2si R4,XM4|cvtdq2ps X,XM|cvtps2dq X,XM|cvttps2dq X,XM|cvtpd2ps X,XM|
cvtps2pd X,M8|cvtdq2pd X,X|cvtsd2ss X,XM8|cvtss2sd X,XM4|sqrtps X,XM|rcpps X,X|rsqrtss X,X|roundpd X,XM,I|
roundss X,XM4,I|dpps X,XM,I|mpsadbw X,XM,I|pclmulqdq X,XM,I|phminposuw X,XM|pmovzxbw X,M8|pmovsxwd X,X|
pmovsxbq X,M2|ptest X,XM|comisd X,XM8|ucomiss X,XM4|ucomisd X,X|cmpps X,XM,J|cmpsd X,XM8,J|ldmxcsr K|stmxcsr M4|
movddup X,M8|movshdup X,XM|lddqu X,M16|blendvps X,XM,xmm0|pabsb X,XM|pabsd X,X|aeskeygenassist X,XM,I|sha1nexte X,X|
sha256msg1 X,XM|pcmpistri X,XM,I|pcmpestrm X,XM,I|extractps RM4,X,I""".replace("\n", "").split("|")
WIDE = """vmovdqu Y,YM|vmovdqu M32,Y|vmovaps Y,M32|vmovaps M32,Y|vbroadcastss Y,M4|vbroadcastsd Y,X|
vbroadcasti128 Y,M16|vpbroadcastb Y,X|vpbroadcastd Y,M4|vextracti128 XM,Y,I|vinserti128 Y,Y,XM,I|
vperm2i128 Y,Y,YM,I|vpermd Y,Y,YM|vpermq Y,YM,I|vpermilps Y,YM,I|vpermilpd X,X,XM|vpshufd Y,YM,I|vpsllvd Y,Y,YM|
vpsravd Y,Y,Y|vpsrlvq X,X,XM|vpslld Y,Y,I|vpsrlw Y,Y,X|vpblendd Y,Y,YM,I|vblendvps Y,Y,YM,Y|vpalignr Y,Y,YM,I|
vfmadd213ps Y,Y,YM|vfmadd231sd X,X,XM8|vfnmsub132pd Y,Y,YM|vfmaddsub213pd X,X,XM|vcvtph2ps Y,XM|vcvtps2ph XM,Y,I|
vcvtpd2dq X,Y|vcvtdq2pd Y,XM|vcvtps2pd Y,X|vpmovzxbd Y,M8|vpmovsxdq Y,X|vpmovmskb R4,Y|vmovmskpd R4,Y|vtestps Y,YM|
vptest Y,Y|vpmaskmovd Y,Y,M32|vpmaskmovq M16,X,X|vmaskmovps M32,Y,Y|vzeroupper|vroundps Y,YM,I|vdpps Y,Y,YM,I|
vcmpps Y,Y,YM,I|vcmpsd X,X,XM8,I|vshufps Y,Y,YM,I|vsqrtpd Y,YM|vaesenc Y,Y,YM|vpclmulqdq Y,Y,YM,I|vcomisd X,XM8|
vucomiss X,X|vmovq X,M8|vmovd X,RM4|vcvtsi2sd X,X,RM4|vcvttss2si R4,XM4|vmovsd X,X,X|vmovss X,M4|vpinsrd X,X,RM4,I|
vmovlps X,X,M8|vmovddup Y,YM""".replace("\n", "").split("|")
X87 = """fld M4|fld M8|fld M10|fild M2|fild M4|fild M8|fst M4|fst M8|fstp M4|fstp M8|fstp M10|fistp M2|fistp M4|
fistp M8|fist M4|fisttp M8|fbld M10|fbstp M10|fadd T,F|fadd F,T|faddp F,T|fadd M4|fiadd M2|fsub T,F|fsubrp F,T|
fsub M8|fisub M4|fmul T,F|fmul M4|fmulp F,T|fimul M4|fdiv T,F|fdivrp F,T|fdiv M8|fidiv M2|fxch F|fxch F|fcomi T,F|
fucomi T,F|fcomip T,F|fucomip T,F|fcom F|fcom M4|fcomp M8|ficom M2|fcompp|fucompp|fchs|fabs|fsqrt|fsin|fcos|fptan|
fpatan|f2xm1|fyl2x|fyl2xp1|fscale|fprem|fprem1|frndint|fxtract|fld1|fldpi|fldz|fldl2e|ftst|fxam|fincstp|fdecstp|
ffree F|fcmovb T,F|fcmovne T,F|fcmovu T,F|fnstsw ax|fnstcw M2|fldcw W|fldcw W|fnclex|fninit|fwait|fld F|fld F|fst F|
fstp F|fld1|fldz|fld M8|fld M4|fild M4""".replace("\n", "").split("|")


class Vectors(Operands):
    def vector(self, templates):
        dice = self.dice
        if templates is VECTOR and dice.random() < .5:
            text = f"{dice.choice(PACKED)} X,XM" if dice.random() < .8 else dice.choice(SCALAR) + dice.choice(SCALARS)
        elif templates is WIDE and dice.random() < .5:
            v = dice.choice("XY")
            text = (f"v{dice.choice(PACKED)} {v},{v},{v}M" if dice.random() < .8 else
                    f"v{dice.choice(SCALAR)}{dice.choice(WIDE_SCALARS)}")
        elif templates is MMX:
            text = dice.choice([f"{dice.choice(MMX)} N,NM"] * 5 + MMX_MOVES)
        else:
            text = dice.choice(templates)
        if text in ("fstp M10", "fbstp M10"):  # over a page's end processors may have stored a part when they fault
            text = text.replace("M10", PREFIX[10] + self.absolute(ARENA + 0x1000 + 16 * dice.randrange(0x100)))
        compares = text.lstrip("v").startswith(("comis", "ucomis", "ptest", "testps", "pcmpistr", "pcmpestr"))
        if text.startswith(("pcmpistr", "pcmpestr")) and not (self.free(1) and self.free(0)):
            return
        reads = {"fcmovb": CF, "fcmovne": ZF, "fcmovu": PF}.get(text.split()[0], 0)
        if text == "fnstsw ax" and not self.free(0):
            return
        text = self.fill_in(text)
        before = self.undefined
        if text.startswith(("fcomi", "fucomi")):
            self.do(text, OF | SF | AF, CF | ZF | PF)
        else:
            self.do(text, 0, ALL if compares else 0, reads)
        self.undefined |= before  # exceptions may be unmasked
